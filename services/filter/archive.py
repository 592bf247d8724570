"""What a zip file holds, by every name it goes by, within fixed bounds.

Readers of zip files disagree on which of its two directories counts, so both are believed: names come from the central
directory and from the local headers, contents from wherever a local header stands. That also finds members that a
forged central directory hides. APPNOTE.TXT 4.3 is the format.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

MAX_DEPTH = 4
MAX_MEMBERS = 10_000
MAX_OCTETS = 100 * 1024 * 1024
"""Unpacked, over all archives of a message."""

_LOCAL, _CENTRAL, _END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_LOCAL_FIELDS = struct.Struct("<4xHHH8xIIHH")
_CENTRAL_FIELDS = struct.Struct("<8xH18xHHH")
_LOCAL_SIZE, _CENTRAL_SIZE = 30, 46
# A comment may stand behind the end record (APPNOTE.TXT 4.3.16), and a program before the first header.
_END_REACH, _START_REACH = 22 + 0xFFFF, 4096
_ENCRYPTED, _UTF8 = 0x1, 0x800
_STORED, _DEFLATED = 0, 8
_INPUT, _OUTPUT = 256 * 1024, 1024 * 1024


class Abandoned(Exception):
    """Nobody waits for the result any more."""


class Member(NamedTuple):
    """One entry; `content` is None where only its name is known: central directory, encrypted, unknown method."""

    name: str
    content: bytes | None
    note: str = ""
    """"encrypted" or "method", where that is why there is no content."""


@dataclass(slots=True)
class Bounds:
    """What may still be unpacked for this message; `exceeded` says which bound was hit, empty while none was."""

    octets: int = MAX_OCTETS
    members: int = MAX_MEMBERS
    exceeded: str = ""
    abandoned: Callable[[], bool] = field(default=lambda: False)


def is_archive(data: bytes, start: int, end: int) -> bool:
    """Whether a range of octets is, or may be opened as, a zip file."""
    return (
        data.find(_LOCAL, start, min(end, start + _START_REACH)) >= 0
        or data.rfind(_END, max(start, end - _END_REACH), end) >= 0
    )


def walk(data: bytes, bounds: Bounds, depth: int = 1) -> Iterator[Member]:
    """Every member of a zip file and of those inside it, in the order met; names are paths within the outermost.

    Never raises for what is wrong with the file; stops and sets `bounds.exceeded` at a bound. Raises Abandoned.
    """
    if depth > MAX_DEPTH:
        bounds.exceeded = f"archives nested more than {MAX_DEPTH} deep"
        return
    for member in _members(data, bounds):
        yield member
        if bounds.exceeded:
            return
        inside = member.content
        if inside is not None and is_archive(inside, 0, len(inside)):
            for inner in walk(inside, bounds, depth + 1):
                yield inner._replace(name=f"{member.name}/{inner.name}")


def _members(data: bytes, bounds: Bounds) -> Iterator[Member]:
    at = data.find(_CENTRAL)
    while at >= 0 and at + _CENTRAL_SIZE <= len(data):
        flags, length, _, _ = _CENTRAL_FIELDS.unpack_from(data, at)
        if not _count(bounds):
            return
        yield Member(_name(data, at + _CENTRAL_SIZE, length, flags), None)
        at = data.find(_CENTRAL, at + _CENTRAL_SIZE)
    at = data.find(_LOCAL)
    while at >= 0 and at + _LOCAL_SIZE <= len(data):
        if not _count(bounds):
            return
        member, after = _local(data, at, bounds)
        yield member
        if bounds.exceeded:
            return
        at = data.find(_LOCAL, after)


def _count(bounds: Bounds) -> bool:
    if bounds.abandoned():
        raise Abandoned
    bounds.members -= 1
    if bounds.members < 0:
        bounds.exceeded = f"more than {MAX_MEMBERS} archive members"
    return bounds.members >= 0


def _local(data: bytes, at: int, bounds: Bounds) -> tuple[Member, int]:
    """The member whose local header stands at an offset, and where to look for the next."""
    _, flags, method, packed, _, length, extra = _LOCAL_FIELDS.unpack_from(data, at)
    name = _name(data, at + _LOCAL_SIZE, length, flags)
    start = at + _LOCAL_SIZE + length + extra
    if flags & _ENCRYPTED:
        return Member(name, None, "encrypted"), at + _LOCAL_SIZE
    if method == _STORED:
        # Whatever the sizes claim: what is stored inside is looked for behind this header too, not behind its end.
        content = data[start : start + packed] if packed else None
        _charge(bounds, packed)
        return Member(name, content), at + _LOCAL_SIZE
    if method != _DEFLATED:
        return Member(name, None, "method"), at + _LOCAL_SIZE
    unpacked, after = _inflate(data, start, bounds)
    return Member(name, unpacked), after if after > at else at + _LOCAL_SIZE


def _charge(bounds: Bounds, octets: int) -> None:
    bounds.octets -= octets
    if bounds.octets < 0:
        bounds.exceeded = f"more than {MAX_OCTETS >> 20} MiB unpacked"


def _inflate(data: bytes, start: int, bounds: Bounds) -> tuple[bytes, int]:
    """What a deflated stream holds, as far as it can be read, and its end; -1 where it has none."""
    inflater = zlib.decompressobj(-15)
    out: list[bytes] = []
    pos = start
    pending = b""
    try:
        while not inflater.eof and not bounds.exceeded:
            if bounds.abandoned():
                raise Abandoned
            if not pending:
                if pos >= len(data):
                    break
                pending = data[pos : pos + _INPUT]
                pos += len(pending)
            block = inflater.decompress(pending, _OUTPUT)
            pending = inflater.unconsumed_tail
            _charge(bounds, len(block))
            out.append(block)
    except zlib.error:
        return b"".join(out), -1
    return b"".join(out), pos - len(inflater.unused_data) if inflater.eof else -1


def _name(data: bytes, start: int, length: int, flags: int) -> str:
    raw = data[start : start + length]
    return raw.decode("utf-8", "replace") if flags & _UTF8 else raw.decode("cp437")
