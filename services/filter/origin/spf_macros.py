"""Macros in the domains of SPF records (RFC 7208 7). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Final
from urllib.parse import quote

_MACRO: Final = re.compile(r"%(?:([%_-])|\{([a-zA-Z])([0-9]*)([rR]?)([.\-+,/_=]*)\})")
_PLAIN: Final = {"%": "%", "_": " ", "-": "%20"}
_LONGEST = 253


def asks_for_name(text: str) -> bool:
    """Whether the validated name of the client is wanted: it costs lookups, so it is found only then."""
    return any((found[2] or "").lower() == "p" for found in _MACRO.finditer(text))


def values(ip: IPv4Address | IPv6Address, sender: str, domain: str, helo: str, name: str) -> dict[str, str]:
    """What the letters stand for; `name`: the validated name of the client, "unknown" where there is none."""
    local, _, sender_domain = sender.rpartition("@")
    nibbles = ".".join(f"{ip:x}".zfill(32)) if isinstance(ip, IPv6Address) else str(ip)
    return {
        "s": sender,
        "l": local,
        "o": sender_domain,
        "d": domain,
        "i": nibbles,
        "p": name,
        "v": "ip6" if isinstance(ip, IPv6Address) else "in-addr",
        "h": helo,
    }


def expand(text: str, letters: Mapping[str, str]) -> str:
    """The domain that `text`, which the grammar has let pass, stands for; shortened on the left where too long."""
    expanded = _MACRO.sub(lambda found: _one(found, letters), text).removesuffix(".")
    while len(expanded) > _LONGEST and "." in expanded:
        expanded = expanded.partition(".")[2]
    return expanded


def _one(found: re.Match[str], letters: Mapping[str, str]) -> str:
    if found[1]:
        return _PLAIN[found[1]]
    letter, digits, turned, delimiters = found[2], found[3], found[4], found[5] or "."
    pieces = re.split(f"[{re.escape(delimiters)}]", letters[letter.lower()])
    if turned:
        pieces.reverse()
    if digits:
        pieces = pieces[-int(digits.lstrip("0")[:9]) :]
    value = ".".join(pieces)
    # RFC 7208 7.3: an upper-case letter asks for the URL form.
    return quote(value, safe="-._~") if letter.isupper() else value
