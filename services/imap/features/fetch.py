"""FETCH and UID FETCH (RFC 9051 6.4.5) with CHANGEDSINCE and VANISHED (RFC 7162)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial
from typing import NamedTuple

from services.core.mime.section import Kind, Section, parse_section
from services.core.store.messages import FlagChange
from services.imap import items, queries, reading
from services.imap.feature import SELECTED, Command, Feature
from services.imap.items import Item, Octets, Structure
from services.imap.session import Refused, Session
from services.imap.view import Spans, View
from services.imap.wire.cursor import Cursor
from services.imap.wire.responses import Bad, Ok, Raw, Response, Vanished
from services.imap.wire.sequence import SequenceSet, holds


class Args(NamedTuple):
    """Which messages, and what of each."""

    messages: SequenceSet
    by_uid: bool
    items: tuple[Item | str, ...]  # a name is looked up among what the features register
    changed_since: int = 0
    vanished: bool = False


MARK_READ = FlagChange(seen=True)


async def fetch(session: Session, args: Args) -> AsyncGenerator[Response, None]:
    """Tell what was asked of each message."""
    asked = _resolved(session, args.items)
    if args.changed_since or items.MODSEQ in asked:
        session.enable("CONDSTORE")
    await session.view()
    spans = session.spans(args.messages, by_uid=args.by_uid)
    wanted = list(asked)
    if args.by_uid and items.UID not in wanted:
        wanted.insert(0, items.UID)  # RFC 9051 6.4.9
    if args.changed_since and items.MODSEQ not in wanted:
        wanted.append(items.MODSEQ)  # RFC 7162 3.1.4.1
    if args.vanished:
        async for response in _vanished(session, args):
            yield response
    if await _mark_read(session, spans, asked):
        # RFC 9051 6.4.5: a flag that this command set is told in its own answer.
        for item in (items.FLAGS, *((items.MODSEQ,) if session.dialect.modseq else ())):
            if item not in wanted:
                wanted.append(item)
    pages = reading.fetch(session.source, spans, wanted, since=args.changed_since, uidonly=session.dialect.uidonly)
    async with aclosing(pages) as chunks:
        async for chunk in chunks:
            yield Raw(chunk)
    yield Ok("Fetched.")


def _resolved(session: Session, asked: Sequence[Item | str]) -> list[Item]:
    known = session.services.registry.fetch_items
    unknown = [item for item in asked if isinstance(item, str) and item not in known]
    if unknown:
        raise Refused(Bad(f"{unknown[0]} is no FETCH item."))
    return [known[item] if isinstance(item, str) else item for item in asked]


async def _mark_read(session: Session, spans: Spans, asked: Sequence[Item]) -> bool:
    """Set \\Seen where the body is about to be read; whether that changed anything."""
    peeks = all(not isinstance(item, Octets) or item.peek for item in asked)
    if peeks or not spans or session.selected.read_only:
        return False
    selected = session.selected
    unseen = await queries.unseen(session.store, session.account_id, selected.fid, _which(selected.view, spans))
    if not unseen:
        return False
    if len(spans) > 1:
        unseen = sorted(set(unseen).intersection(selected.view.pick(spans)))
    stored = await session.change_flags(unseen, MARK_READ)
    selected.view.tell_own(stored.cn - len(stored.changed) + 1, stored.cn)
    return bool(stored.changed)


def _which(view: View, spans: Spans) -> queries.Which:
    known = view.known
    return queries.Which(known[spans[0][0]], known[spans[-1][1] - 1])


async def _vanished(session: Session, args: Args) -> AsyncGenerator[Response, None]:
    """RFC 7162 3.2.6: of the uids named, those that went since."""
    selected = session.selected
    gone = await queries.vanished(session.store, session.account_id, selected.fid, args.changed_since, selected.view.cn)
    ranges = args.messages.resolve(selected.view.uidnext - 1)
    told = [uid for uid in gone if holds(ranges, uid)]
    if told:
        yield Vanished(told, earlier=True)


# ---- the grammar of fetch-att ----------------------------------------------------------------------------------

MACROS: dict[str, tuple[Item, ...]] = {
    "FAST": (items.FLAGS, items.INTERNALDATE, items.SIZE),
    "ALL": (items.FLAGS, items.INTERNALDATE, items.SIZE, items.ENVELOPE),
    "FULL": (items.FLAGS, items.INTERNALDATE, items.SIZE, items.ENVELOPE, Structure()),
}
OCTETS = {
    "RFC822": Octets(b"RFC822", Section(), peek=False),
    "RFC822.HEADER": Octets(b"RFC822.HEADER", Section(kind=Kind.HEADER)),
    "RFC822.TEXT": Octets(b"RFC822.TEXT", Section(kind=Kind.TEXT), peek=False),
}
MOST_ITEMS = 100


def _parse(cursor: Cursor, *, by_uid: bool) -> Args:
    cursor.space()
    messages = cursor.sequence_set()
    cursor.space()
    if cursor.accept(b"("):
        wanted = [_item(cursor)]
        while not cursor.accept(b")"):
            cursor.space()
            wanted.append(_item(cursor))
            if len(wanted) > MOST_ITEMS:
                raise cursor.error(f"more than {MOST_ITEMS} items")
        found = tuple(dict.fromkeys(wanted))
    else:
        found = _macro_or_item(cursor)
    args = Args(messages, by_uid, found)
    if cursor.accept(b" "):
        args = _modifiers(cursor, args)
    cursor.end()
    return args


def _modifiers(cursor: Cursor, args: Args) -> Args:
    cursor.expect(b"(")
    while True:
        match cursor.atom().upper():
            case "CHANGEDSINCE":
                cursor.space()
                args = args._replace(changed_since=cursor.number())
            case "VANISHED":
                args = args._replace(vanished=True)
            case other:
                raise cursor.error(f"{other} is no FETCH modifier")
        if cursor.accept(b")"):
            break
        cursor.space()
    if args.vanished and not (args.by_uid and args.changed_since):
        raise cursor.error("VANISHED needs UID FETCH and CHANGEDSINCE")  # RFC 7162 3.2.6
    return args


def _macro_or_item(cursor: Cursor) -> tuple[Item | str, ...]:
    name = cursor.fetch_name()
    return MACROS[name] if name in MACROS else (_named(cursor, name),)


def _item(cursor: Cursor) -> Item | str:
    return _named(cursor, cursor.fetch_name())


def _named(cursor: Cursor, name: str) -> Item | str:
    if name in ("BODY", "BODY.PEEK") and cursor.peek(b"["):
        return _body(cursor, peek=name == "BODY.PEEK")
    if name == "BODY":
        return Structure()
    return OCTETS.get(name, name)


def _body(cursor: Cursor, *, peek: bool) -> Octets:
    cursor.expect(b"[")
    text = cursor.section()
    section = parse_section(text)
    if section is None:
        raise cursor.error("no such section")
    cursor.expect(b"]")
    if not cursor.accept(b"<"):
        return Octets(b"BODY[%b]" % text, section, None, peek)
    start = cursor.number()
    cursor.expect(b".")
    length = cursor.number()
    cursor.expect(b">")
    if not length:
        raise cursor.error("a part of no octets")  # RFC 9051 9: partial is nz-number
    return Octets(b"BODY[%b]<%d>" % (text, start), section, (start, length), peek)


FEATURE = Feature(
    (),
    rfc=9051,
    commands=(
        Command("FETCH", SELECTED, partial(_parse, by_uid=False), fetch),
        Command("UID FETCH", SELECTED, partial(_parse, by_uid=True), fetch),
    ),
    fetch_items=(
        items.UID,
        items.FLAGS,
        items.MODSEQ,
        items.INTERNALDATE,
        items.SIZE,
        items.ENVELOPE,
        items.BODYSTRUCTURE,
    ),
)
