"""Mailbox names in modified UTF-7 (RFC 3501 5.1.3, RFC 9051 A.1)."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode

_FOREIGN = re.compile(r"[^\x20-\x7e]+|&")
_SHIFT = re.compile(rb"&([A-Za-z0-9+,]*)-")


def encode(name: str) -> bytes:
    """The one way to write `name` in modified UTF-7. Raises ValueError on half a surrogate pair."""
    if name.isascii() and name.isprintable() and "&" not in name:
        return name.encode("ascii")
    return _FOREIGN.sub(_shift, name).encode("ascii")


def decode(name: bytes) -> str:
    """The name. Raises ValueError unless it is written in the one allowed way, so that a mailbox has one name."""
    if b"&" not in name and name.isascii():
        return name.decode("ascii")
    pieces = _SHIFT.split(name)
    pieces[::2] = [piece.decode("ascii").encode("utf-16-be") for piece in pieces[::2]]
    pieces[1::2] = [_unshift(piece) for piece in pieces[1::2]]
    text = b"".join(pieces).decode("utf-16-be")
    # RFC 3501 5.1.3: no printable character in base64, no superfluous shift, no shift left open: only what `encode`
    # writes is a name.
    if encode(text) != name:
        raise ValueError("not the one way to write this name")
    return text


def _shift(foreign: re.Match[str]) -> str:
    text = foreign[0]
    if text == "&":
        return "&-"
    return "&" + b64encode(text.encode("utf-16-be"), b"+,").rstrip(b"=").decode("ascii") + "-"


def _unshift(shifted: bytes) -> bytes:
    if not shifted:
        return b"\0&"
    return b64decode(shifted + b"=" * (-len(shifted) % 4), b"+,")
