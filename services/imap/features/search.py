"""SEARCH and UID SEARCH (RFC 9051 6.4.4) with ESEARCH (RFC 4731), SEARCHRES (RFC 5182), WITHIN and MODSEQ."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple, TypeAlias

from services.core.store.flags import Flag
from services.imap import keys, searching
from services.imap.feature import SELECTED, Command, Feature
from services.imap.keys import Key
from services.imap.session import Refused, Session
from services.imap.view import number_set
from services.imap.wire.cursor import Cursor
from services.imap.wire.responses import Code, Esearch, No, Ok, Response, Search
from services.imap.wire.sequence import SequenceSet

# A key that may depend on the view: sequence numbers, \Recent.
Unresolved: TypeAlias = Callable[[Session], Key]


class Args(NamedTuple):
    """What to look for. `returned`: ESEARCH options, None without RETURN; `key` still has to meet the session."""

    by_uid: bool
    key: Unresolved
    returned: frozenset[str] | None
    modseq: bool


async def search(session: Session, args: Args) -> AsyncGenerator[Response, None]:
    """Find messages and tell their numbers."""
    if args.modseq:
        session.enable("CONDSTORE")
    view = await session.view()
    uids, highest = await searching.search(session.source, args.key(session))
    seqs = view.seqs(uids)
    if len(seqs) < len(uids):
        uids = [uid for uid in uids if view.seq(uid)]
    numbers = uids if args.by_uid else seqs
    if args.returned is None:
        yield Search(numbers, highest if args.modseq and uids else None)
    else:
        if "SAVE" in args.returned:
            session.saved = _saved(uids, args.returned)
        if args.returned != {"SAVE"}:
            yield Esearch(_results(numbers, args.returned, highest if args.modseq else 0), args.by_uid)
    yield Ok("Searched.")


def _saved(uids: list[int], returned: frozenset[str]) -> list[int]:
    """RFC 5182 2.1: with MIN or MAX alone, only those messages are saved."""
    if not uids or returned & {"ALL", "COUNT"} or not returned & {"MIN", "MAX"}:
        return uids
    ends = {uids[0]} if "MIN" in returned else set()
    return sorted(ends | ({uids[-1]} if "MAX" in returned else set()))


def _results(numbers: list[int], returned: frozenset[str], highest: int) -> tuple[tuple[str, int | bytes], ...]:
    # RFC 4731 3.1: MIN, MAX and ALL are left out when nothing was found, COUNT never.
    found: list[tuple[str, int | bytes]] = []
    if numbers and "MIN" in returned:
        found.append(("MIN", numbers[0]))
    if numbers and "MAX" in returned:
        found.append(("MAX", numbers[-1]))
    if numbers and "ALL" in returned:
        found.append(("ALL", number_set(numbers)))
    if "COUNT" in returned:
        found.append(("COUNT", len(numbers)))
    if numbers and highest:
        found.append(("MODSEQ", highest))
    return tuple(found)


# ---- the grammar of search-key ---------------------------------------------------------------------------------

MOST_KEYS, DEEPEST = 500, 50
CHARSETS = frozenset({"US-ASCII", "UTF-8"})
RETURNS = frozenset({"MIN", "MAX", "ALL", "COUNT", "SAVE"})


def _fixed(key: Key) -> Unresolved:
    return lambda _: key


def _recent(session: Session) -> Key:
    return keys.recent(session.selected.view.first_recent)


def _messages(messages: SequenceSet, by_uid: bool) -> Unresolved:
    def resolve(session: Session) -> Key:
        view = session.selected.view
        known = view.known
        spans = session.spans(messages, by_uid=by_uid)
        # Uids between two neighbours of the view belong to no message, so positions and uid ranges say the same.
        return keys.uids([(known[first], known[end - 1]) for first, end in spans])

    return resolve


PLAIN: dict[str, Unresolved] = {
    "ALL": _fixed(keys.ALL),
    "ANSWERED": _fixed(keys.flag(Flag.ANSWERED, True)),
    "DELETED": _fixed(keys.flag(Flag.DELETED, True)),
    "DRAFT": _fixed(keys.flag(Flag.DRAFT, True)),
    "FLAGGED": _fixed(keys.flag(Flag.FLAGGED, True)),
    "SEEN": _fixed(keys.seen(True)),
    "UNANSWERED": _fixed(keys.flag(Flag.ANSWERED, False)),
    "UNDELETED": _fixed(keys.flag(Flag.DELETED, False)),
    "UNDRAFT": _fixed(keys.flag(Flag.DRAFT, False)),
    "UNFLAGGED": _fixed(keys.flag(Flag.FLAGGED, False)),
    "UNSEEN": _fixed(keys.seen(False)),
    "RECENT": _recent,
    "OLD": lambda session: keys.Not(_recent(session)),
    "NEW": lambda session: keys.And((_recent(session), keys.seen(False))),
}
TEXTS: dict[str, Callable[[str], Key]] = {
    "BCC": partial(keys.addresses, "bcc"),
    "BODY": keys.body,
    "CC": partial(keys.addresses, "cc"),
    "FROM": partial(keys.addresses, "from"),
    "SUBJECT": keys.subject,
    "TEXT": keys.text,
    "TO": partial(keys.addresses, "to"),
}
DAYS = {"BEFORE": keys.received_before, "ON": keys.received_on, "SINCE": keys.received_since,
        "SENTBEFORE": keys.sent_before, "SENTON": keys.sent_on, "SENTSINCE": keys.sent_since}  # fmt: skip


class _Reader:
    """Reads keys off a cursor, counting them."""

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self.count = 0
        self.modseq = False

    def all(self, depth: int = 0) -> Unresolved:
        """Keys up to the end, or to the closing parenthesis: all must match."""
        found = [self.one(depth)]
        while self.cursor.accept(b" "):
            found.append(self.one(depth))
        return found[0] if len(found) == 1 else lambda session: keys.And(tuple(key(session) for key in found))

    def one(self, depth: int) -> Unresolved:
        """One key, or a list of them in parentheses."""
        cursor = self.cursor
        self.count += 1
        if self.count > MOST_KEYS or depth > DEEPEST:
            raise Refused(No("The search is too complicated.", Code("LIMIT")))
        if cursor.accept(b"("):
            inner = self.all(depth + 1)
            cursor.expect(b")")
            return inner
        if cursor.peek_set():
            return _messages(cursor.sequence_set(), False)
        name = cursor.atom().upper()
        if name in PLAIN:
            return PLAIN[name]
        cursor.space()
        if name == "NOT":
            negated = self.one(depth + 1)
            return lambda session: keys.Not(negated(session))
        if name == "OR":
            one = self.one(depth + 1)
            cursor.space()
            other = self.one(depth + 1)
            return lambda session: keys.Or((one(session), other(session)))
        if name == "UID":
            return _messages(cursor.sequence_set(), True)
        return _fixed(self._with_argument(name))

    def _with_argument(self, name: str) -> Key:
        cursor = self.cursor
        if name in TEXTS:
            return TEXTS[name](self._text())
        if name in DAYS:
            return DAYS[name](cursor.date())
        match name:
            case "HEADER":
                field = cursor.astring().decode("utf-8", "replace")
                cursor.space()
                return keys.header(field, self._text())
            case "KEYWORD":
                return keys.keyword(cursor.atom())
            case "UNKEYWORD":
                return keys.Not(keys.keyword(cursor.atom()))
            case "LARGER" | "SMALLER":
                return keys.size(cursor.number(), larger=name == "LARGER")
            case "OLDER" | "YOUNGER":
                return keys.received_within(cursor.number(), younger=name == "YOUNGER", now=datetime.now(UTC))
            case "MODSEQ":
                return self._modseq()
            case _:
                raise cursor.error(f"{name} is no SEARCH key")

    def _modseq(self) -> Key:
        self.modseq = True
        if self.cursor.peek(b'"'):
            # RFC 7162 3.1.5: a server that keeps one number a message ignores which flag is meant.
            self.cursor.astring()
            self.cursor.space()
            self.cursor.atom()
            self.cursor.space()
        return keys.modseq(self.cursor.number())

    def _text(self) -> str:
        raw = self.cursor.astring()
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise self.cursor.error("the text is not UTF-8") from error


def _parse(cursor: Cursor, *, by_uid: bool) -> Args:
    cursor.space()
    returned: frozenset[str] | None = None
    if cursor.accept_word(b"RETURN "):
        returned = frozenset(_returned(cursor))
        cursor.space()
    if cursor.accept_word(b"CHARSET "):
        charset = cursor.astring().decode("ascii", "replace").upper()
        if charset not in CHARSETS:
            # RFC 9051 7.1: the code lists what we do read.
            raise Refused(No("That charset is not known here.", Code("BADCHARSET", "(US-ASCII UTF-8)")))
        cursor.space()
    reader = _Reader(cursor)
    key = reader.all()
    cursor.end()
    return Args(by_uid, key, returned, reader.modseq)


def _returned(cursor: Cursor) -> set[str]:
    cursor.expect(b"(")
    found: set[str] = set()
    while not cursor.accept(b")"):
        if found:
            cursor.space()
        option = cursor.atom().upper()
        if option not in RETURNS:
            raise cursor.error(f"{option} is no RETURN option")
        found.add(option)
    return found or {"ALL"}  # RFC 4731 3.1


SEARCH = Feature(
    (),
    rfc=9051,
    commands=(
        Command("SEARCH", SELECTED, partial(_parse, by_uid=False), search),
        Command("UID SEARCH", SELECTED, partial(_parse, by_uid=True), search),
    ),
)
ESEARCH = Feature(("ESEARCH",), rfc=4731)
SEARCHRES = Feature(("SEARCHRES",), rfc=5182)
WITHIN = Feature(("WITHIN",), rfc=5032)
