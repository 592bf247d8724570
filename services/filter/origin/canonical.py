"""Canonical forms of header fields and bodies, and what a signature is computed over (RFC 6376 3.4, 3.5, 3.7). Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from services.core.mime.headers import Header

_FOLD = re.compile(rb"\r?\n")
_SPACES = re.compile(rb"[ \t]+")
# RFC 6376 3.7: the value of b=, with all white space around it, and no other tag whose name ends in b.
_SIGNATURE = re.compile(rb"((?:^[^:]*:|;)[ \t\r\n]*b[ \t\r\n]*=)[^;]*", re.S)


def header(octets: bytes, field: Header, form: str) -> bytes:
    """One field in canonical form "simple" or "relaxed", with its CRLF."""
    if form == "simple":
        raw = octets[field.start : field.end]
        return raw if raw.endswith(b"\r\n") else raw.rstrip(b"\r\n") + b"\r\n"
    return relaxed(field.name, octets[field.value_start : field.end])


def relaxed(name: bytes, value: bytes) -> bytes:
    """A field of a lower-case name in relaxed form, with its CRLF (RFC 6376 3.4.2)."""
    return name + b":" + _SPACES.sub(b" ", _FOLD.sub(b"", value)).strip(b" ") + b"\r\n"


def unsigned(octets: bytes, field: Header, form: str) -> bytes:
    """A signature's own field as it signs itself: b= without its value, and no CRLF (RFC 6376 3.7)."""
    raw = _SIGNATURE.sub(rb"\1", octets[field.start : field.end], count=1)
    if form == "simple":
        return raw.rstrip(b"\r\n")
    return relaxed(field.name, raw[raw.index(b":") + 1 :]).rstrip(b"\r\n")


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


def body(octets: bytes, form: str) -> bytes:
    """A body in canonical form "simple" or "relaxed" (RFC 6376 3.4.3, 3.4.4)."""
    if form == "relaxed":
        octets += b"\r\n"  # so that white space at the very end is seen for what it is; taken off again below
        if b"\t" in octets or b"  " in octets:
            octets = _SPACES.sub(b" ", octets)
        octets = octets.replace(b" \r\n", b"\r\n")
    octets = octets.rstrip(b"\r\n")
    if not octets:
        return b"" if form == "relaxed" else b"\r\n"
    return octets + b"\r\n"


class Bodies:
    """The body of one message, hashed once for each way that its signatures ask for."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._canonical: dict[str, bytes] = {}
        self._hashes: dict[tuple[str, int | None], bytes] = {}

    def length(self, form: str) -> int:
        """Octets of the canonical body."""
        return len(self._body(form))

    def sha256(self, form: str, length: int | None) -> bytes:
        """Of the first `length` octets, None for all of them."""
        key = form, length
        if key not in self._hashes:
            self._hashes[key] = hashlib.sha256(memoryview(self._body(form))[:length]).digest()
        return self._hashes[key]

    def _body(self, form: str) -> bytes:
        if form not in self._canonical:
            self._canonical[form] = body(self._octets, form)
        return self._canonical[form]
