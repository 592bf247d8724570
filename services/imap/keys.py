"""SEARCH keys as SQL clauses, and as tests on the message where SQL cannot say it.

A key that SQL decides is one clause. One that it does not decide (BODY, most HEADER fields) has two: `upper` holds for
every message that may match, `lower` only for those that surely do. What lies between is read and tested here, and
nothing else is. NOT swaps the two, so this holds at any depth.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal, NamedTuple, TypeAlias, assert_never

from services.core.mime.dates import parse_date
from services.core.mime.headers import parse_fields, value_of
from services.core.mime.section import filter_header
from services.core.mime.structure import parse
from services.core.mime.text import read_texts
from services.core.mime.words import decode_words, fold

# What a test needs to see of a message; each larger than the one before it.
Needs: TypeAlias = Literal["subject", "header", "octets"]

HEADER_LINES = 10_000


class Found(NamedTuple):
    """What was read of a candidate, as far as its tests need it."""

    subject: str
    header: bytes
    octets: bytes


@dataclass(frozen=True, slots=True)
class Clause:
    """A key that SQL decides. `{0}`, `{1}` stand for the arguments."""

    sql: str
    args: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class Look:
    """A key that needs a look at the message itself wherever `upper` holds and `lower` does not."""

    upper: Clause
    lower: Clause
    needs: Needs
    holds: Callable[[Found], bool]


@dataclass(frozen=True, slots=True)
class Not:
    """Messages that the key does not match."""

    key: Key


@dataclass(frozen=True, slots=True)
class And:
    """Messages that all keys match."""

    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Messages that one of the keys matches."""

    keys: tuple[Key, ...]


Key: TypeAlias = "Clause | Look | Not | And | Or"

ALL = Clause("true")
NONE = Clause("false")


class Plan(NamedTuple):
    """A statement for `queries.search`: one row of all uids and the highest modseq; with tests, `Candidate` rows."""

    statement: str
    args: tuple[object, ...]
    needs: Needs | None  # None: no tests


class Candidate(NamedTuple):
    """A row of a plan with tests. `exact`: the values of the keys that SQL decided, in `leaves` order."""

    uid: int
    modseq: int
    surely: bool
    subject: str
    blob_id: bytes
    prefix: bytes
    header_length: int
    size: int
    exact: tuple[bool, ...]

    @classmethod
    def of(cls, row: Sequence[Any]) -> Candidate:
        """The candidate that a row describes."""
        return cls._make((*row[:8], tuple(row[8:])))

    def slice(self, needs: Needs) -> tuple[bytes, int, int]:
        """Which octets of the blob a test needs, as `queries.slices` wants it."""
        end = {"subject": 0, "header": self.header_length, "octets": self.size}[needs]
        return self.blob_id, 0, max(end - len(self.prefix), 0)

    def found(self, content: bytes) -> Found:
        """What tests look at, `content` being that slice."""
        octets = self.prefix + content
        return Found(self.subject, octets[: self.header_length], octets)


# The header as text that SQL can look into: octets above 127 and backslashes become escapes.
_HEADER = (
    "lower(encode(substring(o.prefix FROM 1 FOR o.header_length) || substring(b.content FROM 1 FOR "
    "greatest(o.header_length - octet_length(o.prefix), 0)), 'escape'))"
)
_OBJECTS = "JOIN objects o USING (account_id, object_id)"
_BLOBS = "JOIN blobs b ON b.blob_id = o.blob_id"
_READS = "o.subject, o.blob_id, o.prefix, o.header_length, o.size"
_DEPTH: dict[Needs, int] = {"subject": 1, "header": 2, "octets": 3}


class _Compiler:
    """Collects arguments while clauses become text."""

    def __init__(self, first: Sequence[object]) -> None:
        self.args = list(first)

    def text(self, clause: Clause) -> str:
        places = []
        for arg in clause.args:
            self.args.append(arg)
            places.append(f"${len(self.args)}")
        return clause.sql.format(*places)

    def bound(self, key: Key, *, upper: bool) -> str:
        match key:
            case Clause():
                return self.text(key)
            case Look():
                return self.text(key.upper if upper else key.lower)
            case Not():
                return f"NOT ({self.bound(key.key, upper=not upper)})"
            case And():
                return " AND ".join([f"({self.bound(k, upper=upper)})" for k in key.keys]) or "true"
            case Or():
                return " OR ".join([f"({self.bound(k, upper=upper)})" for k in key.keys]) or "false"
            case _:
                assert_never(key)


def leaves(key: Key) -> Iterable[Clause | Look]:
    """The keys without the logic around them, from left to right."""
    match key:
        case Clause() | Look():
            yield key
        case Not():
            yield from leaves(key.key)
        case And() | Or():
            for each in key.keys:
                yield from leaves(each)
        case _:
            assert_never(key)


def plan(key: Key, account_id: int, fid: int, uidnext: int) -> Plan:
    """The statement that finds what `key` may match among the uids below `uidnext`."""
    compiler = _Compiler((account_id, fid, uidnext))
    tests = [leaf for leaf in leaves(key) if isinstance(leaf, Look)]
    where = compiler.bound(key, upper=True)
    columns = ["i.uid", "i.modseq"]
    if tests:
        exact = [f"({compiler.text(leaf)})" for leaf in leaves(key) if isinstance(leaf, Clause)]
        columns += [f"({compiler.bound(key, upper=False)})", _READS, *exact]
    text = ", ".join(columns)
    objects = "o." in text or "o." in where
    blobs = "b.content" in text or "b.content" in where
    statement = (
        f"SELECT {text} FROM items i {_OBJECTS if objects else ''} {_BLOBS if blobs else ''} "  # noqa: S608 - constants and placeholders
        f"WHERE i.account_id = $1 AND i.fid = $2 AND i.uid < $3 AND ({where}) ORDER BY i.uid"
    )
    if not tests:
        # One row of one array: a tenth of the cost of as many rows as messages.
        statement = f"SELECT coalesce(array_agg(uid), '{{}}'), max(modseq) FROM ({statement}) found"  # noqa: S608 - as above
    needs = max((test.needs for test in tests), key=lambda need: _DEPTH[need], default=None)
    return Plan(statement, tuple(compiler.args), needs)


def matches(key: Key, candidate: Candidate, found: Found) -> bool:
    """Whether a message matches, where SQL could not say."""
    return _holds(key, iter(candidate.exact), found)


def _holds(key: Key, exact: Iterator[bool], found: Found) -> bool:
    match key:
        case Clause():
            return next(exact)
        case Look():
            return key.holds(found)
        case Not():
            return not _holds(key.key, exact, found)
        case And():
            return min(_values(key.keys, exact, found), default=True)
        case Or():
            return max(_values(key.keys, exact, found), default=False)
        case _:
            assert_never(key)


def _values(keys: Sequence[Key], exact: Iterator[bool], found: Found) -> list[bool]:
    # Every key takes its values off `exact`, so none may be skipped.
    return [_holds(key, exact, found) for key in keys]


# ---- the keys of RFC 9051 6.4.4 and RFC 3501 6.4.4 --------------------------------------------------------------

_TEXT_COLUMNS = {"from": "from_text", "to": "to_text", "cc": "cc_text", "bcc": "bcc_text"}


def flag(bits: int, wanted: bool) -> Clause:
    """A system flag is set, or is not."""
    return Clause(f"i.flags & {bits:d} {'<>' if wanted else '='} 0")


def seen(wanted: bool) -> Clause:
    """\\Seen is set, or is not."""
    return Clause("i.is_read" if wanted else "NOT i.is_read")


def keyword(name: str) -> Clause:
    """A keyword is set; keywords are case-insensitive (RFC 9051 2.3.2)."""
    return Clause("CAST({0} AS text) IN (SELECT lower(k) FROM unnest(i.keywords) k)", (name.lower(),))


def recent(first_recent: int) -> Clause:
    """No session was told of the message before this one."""
    return Clause("i.uid >= {0}", (first_recent,))


def uids(ranges: Sequence[tuple[int, int]]) -> Clause:
    """The uid lies in one of the ranges (both ends included)."""
    if not ranges:
        return NONE
    lows, highs = [low for low, _ in ranges], [high for _, high in ranges]
    if len(ranges) == 1:
        return Clause("i.uid BETWEEN {0} AND {1}", (lows[0], highs[0]))
    return Clause(
        "EXISTS (SELECT FROM unnest(CAST({0} AS bigint[]), CAST({1} AS bigint[])) r(a, z) "
        "WHERE i.uid BETWEEN r.a AND r.z)",
        (lows, highs),
    )


def size(octets: int, *, larger: bool) -> Clause:
    """More (or fewer) octets than that."""
    return Clause("i.size > {0}" if larger else "i.size < {0}", (octets,))


def modseq(number: int) -> Clause:
    """Changed at that number or later (RFC 7162 3.1.5)."""
    return Clause("i.modseq >= {0}", (number,))


def received(operator: Literal["<", ">="], day: date) -> Clause:
    """The internal date lies before that day, or on or after it."""
    return Clause(f"i.internal_date {operator} {{0}}", (_midnight(day),))


def received_within(seconds: int, *, younger: bool, now: datetime) -> Clause:
    """The internal date is at most (or at least) that long ago (RFC 5032)."""
    return Clause(f"i.internal_date {'>=' if younger else '<='} {{0}}", (now - timedelta(seconds=seconds),))


def sent(operator: Literal["<", ">="], day: date) -> Look:
    """The date in the Date field, as its sender's calendar had it, lies before that day, or on or after it."""
    # Stored is the moment in UTC; a sender's calendar is at most a day away from that.
    early, late = _midnight(day) - timedelta(days=1), _midnight(day) + timedelta(days=2)
    before = operator == "<"
    upper, lower = (late, early) if before else (early, late)

    def holds(found: Found) -> bool:
        fields, _ = parse_fields(found.header, 0, len(found.header), HEADER_LINES)
        for field in fields:
            if field.name == b"date":
                when = parse_date(value_of(found.header, field))
                if when is None:
                    return False
                local = (when.utc + timedelta(minutes=when.offset)).date()
                return local < day if before else local >= day
        return False

    def side(moment: datetime) -> Clause:
        return Clause(f"coalesce(o.sent_at {operator} {{0}}, false)", (moment,))

    return Look(side(upper), side(lower), "header", holds)


def received_before(day: date) -> Key:
    """The internal date lies before that day."""
    return received("<", day)


def received_since(day: date) -> Key:
    """The internal date lies on that day or after it."""
    return received(">=", day)


def received_on(day: date) -> Key:
    """The internal date lies on that day."""
    return And((received(">=", day), received("<", day + timedelta(days=1))))


def sent_before(day: date) -> Key:
    """The Date field says an earlier day."""
    return sent("<", day)


def sent_since(day: date) -> Key:
    """The Date field says that day or a later one."""
    return sent(">=", day)


def sent_on(day: date) -> Key:
    """The Date field says that day."""
    return And((sent(">=", day), sent("<", day + timedelta(days=1))))


def subject(needle: str) -> Key:
    """The decoded subject contains it."""
    if needle.isascii():
        return Clause("strpos(lower(o.subject), {0}) > 0", (needle.lower(),))
    # Postgres folds case beyond ASCII only in some locales; we do in all.
    folded = fold(needle)
    return Look(Clause("octet_length(o.subject) > 0"), NONE, "subject", lambda found: folded in fold(found.subject))


def addresses(field: str, needle: str) -> Clause:
    """The decoded addresses of From, To, Cc or Bcc contain it."""
    return Clause(f"strpos(o.{_TEXT_COLUMNS[field]}, {{0}}) > 0", (fold(needle),))


def text(needle: str) -> Key:
    """Header or text contain it."""
    here = Clause("strpos(o.search_text, {0}) > 0", (fold(needle),))
    if not needle.isascii():
        return here
    return Or((here, Clause(f"strpos({_HEADER}, {{0}}) > 0", (_escaped(needle),))))


def body(needle: str) -> Key:
    """The text of the body, decoded, contains it."""
    folded = fold(needle)

    def holds(found: Found) -> bool:
        message = parse(found.octets)
        return any(folded in fold(readable.text) for readable in read_texts(message, found.octets))

    return Look(Clause("strpos(o.search_text, {0}) > 0", (folded,)), NONE, "octets", holds)


def header(name: str, needle: str) -> Key:
    """A field of that name is there and its decoded value contains the needle; an empty needle asks for the field."""
    lower = name.lower()
    if needle and lower == "subject":
        return subject(needle)
    if needle and lower == "message-id" and needle.isascii():
        return Clause("coalesce(strpos(lower(o.message_id), {0}) > 0, false)", (needle.strip("<>").lower(),))
    wanted, folded = lower.encode("utf-8", "replace"), fold(needle)

    def holds(found: Found) -> bool:
        kept = filter_header(found.header, frozenset({wanted}))
        fields, _ = parse_fields(kept, 0, len(kept), HEADER_LINES)
        return any(folded in fold(decode_words(value_of(kept, field))) for field in fields)

    pattern = f"(^|\\n){re.escape(lower)}[ \\t]*:"
    return Look(Clause(f"{_HEADER} ~ {{0}}", (pattern,)), NONE, "header", holds)


def _escaped(needle: str) -> str:
    return needle.lower().replace("\\", "\\\\")


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
