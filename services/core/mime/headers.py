"""A header block as fields with offsets, and the grammars of the fields that mail is sorted and shown by."""

import re
from itertools import islice
from typing import NamedTuple

from services.core.mime.addresses import (
    ADDRESS_LIMIT,
    Address,
    GroupEnd,
    GroupStart,
    Mailbox,
    parse_addresses,
)
from services.core.mime.params import (
    ContentType,
    Disposition,
    Params,
    content_type,
    decode_params,
    disposition,
    param,
)
from services.core.mime.words import decode_8bit

__all__ = [
    "ADDRESS_LIMIT",
    "Address",
    "ContentType",
    "Disposition",
    "GroupEnd",
    "GroupStart",
    "Header",
    "Mailbox",
    "Params",
    "content_type",
    "decode_params",
    "disposition",
    "find",
    "find_all",
    "header_end",
    "message_ids",
    "param",
    "parse_addresses",
    "parse_fields",
    "unfold",
    "value_of",
]

# Each match is one field with its continuation lines, or one line that is no field (mbox "From ", rubbish).
_FIELD = re.compile(rb"([^\x00-\x20:\x7f]++)[ \t]*+:[ \t]*+(.*+(?:\n[ \t].*+)*+)\n?|.++\n?|\n")
_FOLD = re.compile(rb"\r?\n")
_MESSAGE_ID = re.compile(rb"<([^<>]{1,2000}+)>")
_SPACE = re.compile(rb"\s+")
# RFC 5322 2.1.1: no line is longer, so no Message-ID is.
_ID_LENGTH = 998


class Header(NamedTuple):
    """One field: lower-case name; its lines are `start`..`end`, line ends included, its value `value_start`..`end`."""

    name: bytes
    start: int
    value_start: int
    end: int


def header_end(data: bytes, start: int, end: int) -> int:
    """Offset behind the blank line that ends the header at `start`; `end` if there is none. CRLF and bare LF alike."""
    if data.startswith(b"\r\n", start, end):
        return start + 2
    if data.startswith(b"\n", start, end):
        return start + 1
    crlf = data.find(b"\n\r\n", start, end)
    lf = data.find(b"\n\n", start, end if crlf < 0 else crlf + 1)
    if lf >= 0:
        return lf + 2
    return end if crlf < 0 else crlf + 3


def parse_fields(data: bytes, start: int, end: int, limit: int) -> tuple[tuple[Header, ...], int]:
    """The fields between two offsets, in order, and how many lines were read: at most `limit`, folded lines as one.

    Obsolete folding and spaces before the colon are taken (RFC 5322 4.2, 4.5). Lines that are no fields are skipped.
    """
    matches = list(islice(_FIELD.finditer(data, start, end), limit))
    new = tuple.__new__  # what Header() calls, without the call in between: this line runs for every header line
    fields = [new(Header, (m[1].lower(), m.start(), m.start(2), m.end())) for m in matches if m.lastindex is not None]
    return tuple(fields), len(matches)


def unfold(raw: bytes) -> bytes:
    """A raw field value on one line without the white space around it (RFC 5322 2.2.3)."""
    raw = raw.strip()
    return _FOLD.sub(b"", raw) if b"\n" in raw else raw


def value_of(data: bytes, field: Header) -> bytes:
    """The unfolded value of a field."""
    return unfold(data[field.value_start : field.end])


def find(fields: tuple[Header, ...], name: bytes) -> Header | None:
    """The first field of a lower-case name."""
    return next((field for field in fields if field.name == name), None)


def find_all(fields: tuple[Header, ...], name: bytes) -> list[Header]:
    """Every field of a lower-case name, in order."""
    return [field for field in fields if field.name == name]


def message_ids(raw: bytes) -> list[str]:
    """The ids of an unfolded Message-ID, In-Reply-To or References value, without angle brackets, in order.

    Comments and phrases around them are passed over (RFC 5322 4.5.4); with no bracket at all, words with "@" count.
    What is longer than a line may be is dropped.
    """
    if b"\x00" in raw:
        raw = raw.replace(b"\x00", b"")
    if b"<" in raw:
        found = _MESSAGE_ID.findall(raw)
        if any(b" " in piece or b"\t" in piece for piece in found):
            found = [_SPACE.sub(b"", piece) for piece in found]
    else:
        found = [word for word in raw.split() if b"@" in word]
    return [decode_8bit(piece) for piece in found if 0 < len(piece) <= _ID_LENGTH]
