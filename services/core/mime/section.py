"""IMAP sections: from "1.2.HEADER.FIELDS (From)" to octets of the stored message (RFC 9051 6.4.5)."""

import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import assert_never

from services.core.mime.parts import PartTable

_SECTION = re.compile(
    rb"(?:([1-9]\d{0,5}(?:\.[1-9]\d{0,5})*+)(?:\.(?=.)|\Z))?"
    rb"(?:(HEADER|TEXT|MIME)|HEADER\.FIELDS(\.NOT)? \(([^()]+)\))?\Z",
    re.I,
)
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/=]+")


class Kind(Enum):
    """What of a part a section names."""

    ALL = ""
    HEADER = "HEADER"
    HEADER_FIELDS = "HEADER.FIELDS"
    HEADER_FIELDS_NOT = "HEADER.FIELDS.NOT"
    TEXT = "TEXT"
    MIME = "MIME"


@dataclass(frozen=True, slots=True)
class Section:
    """A part path, what of it, and lower-case field names for the two filtered kinds."""

    path: tuple[int, ...] = ()
    kind: Kind = Kind.ALL
    fields: frozenset[bytes] = frozenset()


def parse_section(text: bytes) -> Section | None:
    """The section between the brackets of BODY[...], None if it breaks the grammar."""
    match = _SECTION.match(text)
    if match is None:
        return None
    numbers, word, negated, names = match.groups()
    path = tuple(int(number) for number in numbers.split(b".")) if numbers else ()
    if names is not None:
        fields = frozenset(name.strip(b'"').lower() for name in names.split())
        return Section(path, Kind.HEADER_FIELDS_NOT if negated else Kind.HEADER_FIELDS, fields)
    kind = Kind(word.decode().upper()) if word else Kind.ALL
    if kind is Kind.MIME and not path:  # RFC 9051 section-msgtext has no MIME
        return None
    return Section(path, kind)


def spans(parts: PartTable, section: Section) -> list[tuple[int, int]] | None:
    """The octet ranges a section covers, None where the message has no such part.

    For the two filtered kinds it is the range of the whole header that `filter_header` is to be applied to.
    """
    entry = parts.get(".".join(map(str, section.path)))
    if entry is None:
        return None
    whole = not section.path
    match section.kind:
        case Kind.ALL:
            return [(0 if whole else entry.body_start, entry.body_end)]
        case Kind.MIME:
            return None if whole else [(entry.header_start, entry.body_start)]
        case Kind.TEXT:
            start = entry.body_start if whole else entry.text_start
            return None if start < 0 else [(start, entry.body_end)]
        case Kind.HEADER | Kind.HEADER_FIELDS | Kind.HEADER_FIELDS_NOT:
            if whole:
                return [(entry.header_start, entry.body_start)]
            # RFC 9051 6.4.5: HEADER and TEXT of a numbered part need a message/rfc822
            return [(entry.body_start, entry.text_start)] if entry.is_message else None
        case _:
            assert_never(section.kind)


def read_section(parts: PartTable, section: Section, octets: Callable[[int, int], bytes]) -> bytes | None:
    """The octets of a section, None where there is no such part. `octets(start, end)` gives a slice of the message."""
    ranges = spans(parts, section)
    if ranges is None:
        return None
    found = b"".join([octets(start, end) for start, end in ranges])
    match section.kind:
        case Kind.HEADER_FIELDS:
            return filter_header(found, section.fields)
        case Kind.HEADER_FIELDS_NOT:
            return filter_header(found, section.fields, negate=True)
        case Kind.ALL | Kind.HEADER | Kind.TEXT | Kind.MIME:
            return found
        case _:
            assert_never(section.kind)


@lru_cache(maxsize=256)
def _line_pattern(fields: frozenset[bytes], negate: bool) -> "re.Pattern[bytes]":
    """Matches field after field; the one group holds the lines to keep."""
    names = b"|".join(re.escape(name) for name in sorted(fields)) or b"(?!)"
    named = rb"(?:" + names + rb")[ \t]*+:.*+(?:\n[ \t].*+)*+\n?"
    if negate:
        return re.compile(named + rb"|((?!\r?\n).++(?:\n[ \t].*+)*+\n?)|\r?\n", re.I)
    return re.compile(rb"(" + named + rb")|.++\n?|\n", re.I)


def filter_header(header: bytes, fields: frozenset[bytes], negate: bool = False) -> bytes:
    """The lines of a header whose names are (or with `negate` are not) among lower-case `fields`, octet for octet and
    in order, then the blank line that every header fetch ends with (RFC 9051 6.4.5)."""
    kept = b"".join(_line_pattern(fields, negate).findall(header))
    if kept and not kept.endswith(b"\n"):
        return kept + b"\r\n\r\n"
    return kept + b"\r\n"


def decode_body(raw: bytes, encoding: str) -> bytes:
    """A body without its transfer encoding; damaged base64 or quoted-printable gives what can be read, never an error.

    An encoding that is not base64 or quoted-printable leaves the octets as they are.
    """
    if encoding == "base64":
        try:
            return binascii.a2b_base64(raw)
        except binascii.Error:
            digits = _NOT_BASE64.sub(b"", raw).partition(b"=")[0]
            if len(digits) % 4 == 1:  # cut within its first octet: nothing of it is known
                digits = digits[:-1]
            return binascii.a2b_base64(digits + b"=" * (-len(digits) % 4))
    if encoding == "quoted-printable":
        return binascii.a2b_qp(raw)
    return raw
