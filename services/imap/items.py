"""FETCH items: which columns each needs, and how a page of messages becomes bytes.

An item works on columns, not on messages: it is given a list per column it named and gives back what stands in its
template, a list per place. Ten thousand lines are then a handful of list passes and one formatting each.
Items that need octets (`Octets`) name a slice of each message instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from services.core.mime.envelope import body
from services.core.mime.facts import HEAD_FIELDS
from services.core.mime.parts import decode_parts
from services.core.mime.section import Kind, Section, filter_header, spans
from services.core.mime.structure import parse
from services.imap.flagtext import RECENT_BIT, TEXTS, Keywords, flags_text

Columns: TypeAlias = Sequence[Any]


class Context(NamedTuple):
    """What rendering depends on besides the message."""

    first_recent: int
    keywords: Keywords


@dataclass(frozen=True, slots=True)
class Column:
    """An item made from columns of `queries.COLUMNS`. `values(context, *columns)` fills the template's places."""

    name: str
    columns: tuple[str, ...]
    template: bytes
    values: Callable[..., list[Sequence[Any]]] | None = None  # None: the columns as they are


@dataclass(frozen=True, slots=True)
class Octets:
    """An item made from octets of the message: BODY[section]<start.length> and its RFC822 names."""

    label: bytes
    section: Section
    partial: tuple[int, int] | None = None
    peek: bool = True

    @property
    def in_head(self) -> bool:
        """Whether the lines that delivery set aside answer it."""
        section = self.section
        return section.kind is Kind.HEADER_FIELDS and not section.path and section.fields <= HEAD_FIELDS


@dataclass(frozen=True, slots=True)
class Structure:
    """BODY without extension data: rare enough to be made from the octets when asked for."""


Item: TypeAlias = "Column | Octets | Structure"


class Slice(NamedTuple):
    """Octets `start` to `end` of the message, prefix and blob as one."""

    start: int
    end: int


# ---- items from columns ----------------------------------------------------------------------------------------


def _flags(
    context: Context, uids: Sequence[int], bits: Sequence[int], keywords: Sequence[list[str] | None]
) -> list[Columns]:
    first = context.first_recent
    for words in keywords:
        if words:
            context.keywords.meet(words)
    if uids[-1] < first:
        return [[TEXTS[b] if not k else flags_text(b, k, False) for b, k in zip(bits, keywords, strict=True)]]
    return [
        [
            flags_text(b | RECENT_BIT if uid >= first else b, k, False)
            for uid, b, k in zip(uids, bits, keywords, strict=True)
        ]
    ]


@lru_cache(maxsize=4096)
def _day(days: int) -> bytes:
    day = datetime.fromtimestamp(days * 86_400, UTC)
    # RFC 9051 9: date-day-fixed is padded with a space.
    return b"%2d-%b-%04d" % (day.day, _MONTHS[day.month - 1], day.year)


_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
_TWO = tuple(b"%02d" % n for n in range(60))


def date_time(seconds: int) -> bytes:
    """A moment (seconds since the epoch) as an IMAP date-time in UTC, without the quotes."""
    days, rest = divmod(seconds, 86_400)
    minutes, second = divmod(rest, 60)
    return b"%b %b:%b:%b +0000" % (_day(days), _TWO[minutes // 60], _TWO[minutes % 60], _TWO[second])


def _dates(_: Context, seconds: Sequence[int]) -> list[Columns]:
    return [list(map(date_time, seconds))]


UID = Column("UID", ("uid",), b"UID %d")
FLAGS = Column("FLAGS", ("uid", "bits", "keywords"), b"FLAGS (%b)", _flags)
MODSEQ = Column("MODSEQ", ("modseq",), b"MODSEQ (%d)")
INTERNALDATE = Column("INTERNALDATE", ("internal_date",), b'INTERNALDATE "%b"', _dates)
SIZE = Column("RFC822.SIZE", ("size",), b"RFC822.SIZE %d")
ENVELOPE = Column("ENVELOPE", ("envelope",), b"ENVELOPE %b")
BODYSTRUCTURE = Column("BODYSTRUCTURE", ("bodystructure",), b"BODYSTRUCTURE %b")

# ---- a page of lines -------------------------------------------------------------------------------------------


def columns_of(items: Sequence[Item]) -> tuple[str, ...]:
    """Every column the items need, uid first, none twice."""
    plain = only_columns(items)
    names = ["uid"]
    for item in items:
        if isinstance(item, Column):
            names += item.columns
        else:
            names += ["head"] if plain else opened_columns(item)
    return tuple(dict.fromkeys(names))


def only_columns(items: Sequence[Item]) -> bool:
    """Whether no message need be opened: columns and set-aside header lines answer everything."""
    return all(isinstance(item, Column) or (isinstance(item, Octets) and item.in_head) for item in items)


def lines(
    items: Sequence[Item], context: Context, numbers: Sequence[int], columns: Mapping[str, Columns], verb: bytes
) -> bytes:
    """FETCH responses for a page of messages, of items for which `only_columns` holds and whose heads are all there."""
    return b"".join(_formatted(items, context, numbers, columns, verb, b")\r\n"))


def starts(
    items: Sequence[Column], context: Context, numbers: Sequence[int], columns: Mapping[str, Columns], verb: bytes
) -> Iterator[bytes]:
    """The same responses, open at the end for items from octets."""
    return _formatted(items, context, numbers, columns, verb, b" " if items else b"")


def _formatted(
    items: Sequence[Item],
    context: Context,
    numbers: Sequence[int],
    columns: Mapping[str, Columns],
    verb: bytes,
    end: bytes,
) -> Iterator[bytes]:
    parts = []
    values: list[Columns] = [numbers]
    for item in items:
        if isinstance(item, Octets):
            fields, partial = item.section.fields, item.partial
            parts.append(item.label.replace(b"%", b"%%") + b" %b")
            values.append([literal(cut(filter_header(head, fields), partial)) for head in columns["head"]])
        elif isinstance(item, Column):
            parts.append(item.template)
            given = [columns[name] for name in item.columns]
            values += given if item.values is None else item.values(context, *given)
    template = b"* %%d %b (%b%b" % (verb, b" ".join(parts), end)
    return map(template.__mod__, zip(*values, strict=True))


# ---- items from octets -----------------------------------------------------------------------------------------


def cut(octets: bytes, partial: tuple[int, int] | None) -> bytes:
    """The asked part of a section (RFC 9051 6.4.5: a start beyond the end gives an empty string)."""
    return octets if partial is None else octets[partial[0] : partial[0] + partial[1]]


def literal(octets: bytes) -> bytes:
    """Octets as an IMAP string that always is a literal."""
    return b"{%d}\r\n%b" % (len(octets), octets)


def opened_columns(item: Octets | Structure) -> tuple[str, ...]:
    """What `where` must know of a message."""
    if isinstance(item, Octets) and item.section.path:
        return ("blob_id", "prefix", "parts")
    return ("blob_id", "prefix", "size", "header_length")


def sent_as_is(item: Octets | Structure) -> bool:
    """Whether the client gets exactly the octets that `where` names."""
    return isinstance(item, Octets) and not _is_filtered(item.section)


def where(item: Octets | Structure, row: dict[str, Any]) -> Slice | None:
    """Which octets of the message the item needs; None: the message has no such part.

    For header fields it is the whole header they are picked from; a partial fetch needs only its own part otherwise.
    """
    if isinstance(item, Structure):
        return Slice(0, row["size"])
    section = item.section
    if section.path:
        found = spans(decode_parts(row["parts"]), section)
        if not found:
            return None
        start, end = found[0][0], found[-1][1]
    else:
        match section.kind:
            case Kind.ALL:
                start, end = 0, row["size"]
            case Kind.TEXT:
                start, end = row["header_length"], row["size"]
            case Kind.HEADER | Kind.HEADER_FIELDS | Kind.HEADER_FIELDS_NOT:
                start, end = 0, row["header_length"]
            case Kind.MIME:
                return None
    if item.partial is not None and not _is_filtered(section):
        start = min(end, start + item.partial[0])
        end = min(end, start + item.partial[1])
    return Slice(start, end)


def _is_filtered(section: Section) -> bool:
    return section.kind in (Kind.HEADER_FIELDS, Kind.HEADER_FIELDS_NOT)


def render(item: Octets | Structure, before: bytes, octets: bytes | None) -> tuple[bytes, ...]:
    """The item with its label, from the octets that `where` asked for: `before` and then these; None: no such part.

    In pieces: the octets of a folder that is read whole are copied once less.
    """
    if isinstance(item, Structure):
        return (b"BODY %b" % body(parse(before + (octets or b""))),)
    if octets is None:
        return (item.label, b" NIL")
    if _is_filtered(item.section):
        negate = item.section.kind is Kind.HEADER_FIELDS_NOT
        return (
            item.label,
            b" ",
            literal(cut(filter_header(before + octets, item.section.fields, negate), item.partial)),
        )
    return (b"%b {%d}\r\n" % (item.label, len(before) + len(octets)), before, octets)
