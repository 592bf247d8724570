"""What of a header a signature is computed over (RFC 6376 3.5, 3.7, 5.4.2). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from services.core.dkim.canonical import relaxed, simple
from services.core.mime.headers import Header

# RFC 6376 3.7: the value of b=, with all white space around it, and no other tag whose name ends in b.
_SIGNATURE = re.compile(rb"((?:^[^:]*:|;)[ \t\r\n]*b[ \t\r\n]*=)[^;]*", re.S)


def header(octets: bytes, field: Header, form: str) -> bytes:
    """One field in canonical form "simple" or "relaxed", with its CRLF."""
    if form == "simple":
        return simple(octets[field.start : field.end])
    return relaxed(field.name, octets[field.value_start : field.end])


def unsigned(octets: bytes, field: Header, form: str) -> bytes:
    """A signature's own field as it signs itself: b= without its value, and no CRLF (RFC 6376 3.7)."""
    raw = _SIGNATURE.sub(rb"\1", octets[field.start : field.end], count=1)
    made = simple(raw) if form == "simple" else relaxed(field.name, raw[raw.index(b":") + 1 :])
    return made.removesuffix(b"\r\n")


def selected(octets: bytes, fields: Iterable[Header], names: Iterable[str], form: str) -> bytes:
    """The fields that h= names, the last of a name first; a name that is listed more often than it occurs adds nothing.

    RFC 6376 5.4.2.
    """
    stacks: dict[bytes, list[Header]] = {}
    for field in fields:
        stacks.setdefault(field.name, []).append(field)
    chosen = []
    for name in names:
        if stack := stacks.get(name.lower().encode("ascii", "replace")):
            chosen.append(header(octets, stack.pop(), form))
    return b"".join(chosen)
