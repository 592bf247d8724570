"""Canonical forms of header fields and bodies (RFC 6376 3.4), for whoever signs and whoever verifies. Pure.

Bare line feeds count as line ends (RFC 6376 5.3), as every other hop will make them; a lone CR is text. The octets
themselves are never changed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

_BLOCK = 1 << 18
_FOLD = re.compile(rb"\r?\n")
_SPACES = re.compile(rb"[ \t]+")
_LONE_CR = re.compile(rb"\r(?!\n)")


def relaxed(name: bytes, value: bytes) -> bytes:
    """A field of a lower-case name in relaxed form, with its CRLF (RFC 6376 3.4.2)."""
    return name + b":" + _SPACES.sub(b" ", _FOLD.sub(b"", value)).strip(b" ") + b"\r\n"


def simple(field: bytes) -> bytes:
    """A field, with or without its line end, in simple form, with its CRLF (RFC 6376 3.4.1)."""
    return _lines(field.rstrip(b"\r\n")) + b"\r\n"


def body(octets: bytes, start: int, form: str) -> Iterator[bytes]:
    """The body that begins at `start`, in canonical form "simple" or "relaxed", in pieces (RFC 6376 3.4.3, 3.4.4)."""
    change, white = (_relaxed_lines, b" \t\r\n") if form == "relaxed" else (_lines, b"\r\n")
    end = _body_end(octets, start, white)
    at = start
    while at < end:
        # Whole lines only, so that no block ends within white space that the next one continues.
        cut = octets.find(b"\n", min(at + _BLOCK, end), end) + 1 or end
        yield change(octets[at:cut])
        at = cut
    if end > start or form == "simple":
        yield b"\r\n"


class Bodies:
    """The body of one message, hashed once for each way that its signatures ask for."""

    def __init__(self, octets: bytes, start: int) -> None:
        """`octets`: the whole message; the body begins at `start`."""
        self._octets, self._start = octets, start
        self._lengths: dict[str, int] = {}
        self._hashes: dict[tuple[str, int | None], bytes] = {}

    def length(self, form: str) -> int:
        """Octets of the canonical body."""
        if form not in self._lengths:
            self._lengths[form] = sum(map(len, body(self._octets, self._start, form)))
        return self._lengths[form]

    def sha256(self, form: str, length: int | None = None) -> bytes:
        """Of the first `length` octets, None for all of them."""
        key = form, length
        if key not in self._hashes:
            digest, left = hashlib.sha256(), length
            for piece in body(self._octets, self._start, form):
                digest.update(memoryview(piece)[:left])
                left = None if left is None else max(0, left - len(piece))
            self._hashes[key] = digest.digest()
        return self._hashes[key]


def _body_end(octets: bytes, start: int, white: bytes) -> int:
    """Where the body ends without the line ends, and the `white` space, at its end."""
    end = max(start, len(octets.rstrip(white)))
    for lone in _LONE_CR.finditer(octets, end):
        end = lone.end()
    return end


def _lines(lines: bytes) -> bytes:
    if lines.count(b"\n") != lines.count(b"\r\n"):
        lines = lines.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    return lines


def _relaxed_lines(lines: bytes) -> bytes:
    # A few passes in C: an expression takes ten times as long over text that has hardly anything to be changed.
    lines = _lines(lines)
    if b"\t" in lines:
        lines = lines.replace(b"\t", b" ")
    while b"  " in lines:
        lines = lines.replace(b"  ", b" ")
    return lines.replace(b" \r\n", b"\r\n")
