"""The processor time of a side: of its processes and all that they have started, those that have ended included."""

from __future__ import annotations

import os
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

from bench.sides import Side

_TICKS = os.sysconf("SC_CLK_TCK")


def seconds(side: Side) -> float:
    """User and system time so far."""
    known: dict[int, tuple[int, int]] = {}  # parent, ticks
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with suppress(OSError):
                words = Path("/proc", entry, "stat").read_text().rpartition(") ")[2].split()
                known[int(entry)] = int(words[1]), sum(map(int, words[11:15]))
    children = defaultdict(list)
    for pid, (parent, _) in known.items():
        children[parent].append(pid)
    seen: set[int] = set()
    left = [int(each.read_text().split()[0]) for each in side.pidfiles if each.exists()]
    while left:
        pid = left.pop()
        if pid in known and pid not in seen:
            seen.add(pid)
            left += children[pid]
    return sum(known[pid][1] for pid in seen) / _TICKS
