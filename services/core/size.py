"""How much "10G" is."""

from __future__ import annotations

import re

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def octets(size: str) -> int | None:
    """How many octets "10G" or "500M" are (powers of 1024); None for "none". Raises ValueError for anything else."""
    if size.casefold() in ("none", "unlimited"):
        return None
    found = re.fullmatch(r"(\d{1,15})\s*([kmgt]?)i?b?", size.strip().casefold(), re.ASCII)
    if found is None:
        raise ValueError(f"expected a size such as 10G, 500M, 1048576 or none, got {size!r}")
    return int(found[1]) * _UNITS[found[2]]


def short(count: int | None) -> str:
    """The shortest text that `octets` reads as this many."""
    if count is None:
        return "none"
    for unit, factor in reversed(_UNITS.items()):
        if count and count % factor == 0:
            return f"{count // factor}{unit.upper()}"
    return str(count)
