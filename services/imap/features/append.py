"""APPEND (RFC 9051 6.3.12), several messages at once (RFC 3502), with APPENDUID (RFC 4315)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from services.core.store import blobs, content, messages
from services.core.store.messages import Placement
from services.imap import queries
from services.imap.feature import AUTHENTICATED, Command, Feature
from services.imap.flagtext import parse_flags
from services.imap.session import Refused, Session
from services.imap.view import number_set
from services.imap.wire.cursor import BadSyntax, Cursor
from services.imap.wire.framer import NeedLiteral
from services.imap.wire.responses import Code, No, Ok, Response

STAGED_OCTETS = 8 << 20  # blobs sent to the store in one statement, about


class Message(NamedTuple):
    """One message of an APPEND. `date` None: now."""

    octets: bytes
    flags: tuple[str, ...] = ()
    date: datetime | None = None


class Args(NamedTuple):
    """A mailbox and what to put into it."""

    path: str
    messages: tuple[Message, ...]


async def offer(session: Session, need: NeedLiteral) -> None:
    """Refuse what would be refused anyway, before the client sends it (RFC 9051 6.3.12)."""
    _check_size(session, need.size)
    if not need.sync:
        return  # it is on its way, and `append` asks all this again
    cursor = Cursor(need.request, utf8=session.dialect.utf8)
    try:
        cursor.space()
        path = cursor.mailbox()
    except BadSyntax:
        # It is the mailbox name that comes as a literal, or `append` will say what is wrong.
        return
    await session.folder(path, create=True)
    octets = sum(len(literal.octets) for literal in need.request.literals) + need.size
    if not await queries.has_room(session.store, session.account_id, octets):
        raise Refused(No("The mailbox quota is used up.", Code("OVERQUOTA")))


def _check_size(session: Session, octets: int) -> None:
    limit = session.services.message_size
    if octets > limit:
        # RFC 7889 4 and RFC 4469: the code a client knows for a message that is too large.
        raise Refused(No(f"A message may have at most {limit} octets.", Code("TOOBIG")))


async def append(session: Session, args: Args) -> AsyncGenerator[Response, None]:
    """Put messages into a mailbox, all or none."""
    row = await session.folder(args.path, create=True)
    for message in args.messages:
        if not message.octets:
            raise Refused(No("An empty message is none."))
        _check_size(session, len(message.octets))
    if not await queries.has_room(session.store, session.account_id, sum(len(m.octets) for m in args.messages)):
        raise Refused(No("The mailbox quota is used up.", Code("OVERQUOTA")))
    now = datetime.now(UTC)
    placements: list[Placement] = []
    for group in _groups(args.messages):
        names = await blobs.stage(session.store, [message.octets for message in group])
        for name, message in zip(names, group, strict=True):
            flags, seen, keywords = parse_flags(message.flags)
            prepared = await content.prepare(name, b"", message.octets)
            placements.append(
                Placement(prepared, row.fid, message.date or now, flags=flags, is_read=seen, keywords=keywords)
            )
    placed = await messages.append(session.store, session.account_id, placements)
    session.told(row.fid, max(each.cn for each in placed))
    uids = number_set(sorted(each.uid for each in placed))
    yield Ok("Appended.", Code("APPENDUID", b"%d %b" % (placed[0].uidvalidity, uids)))


def _groups(appended: Sequence[Message]) -> list[list[Message]]:
    groups: list[list[Message]] = [[]]
    octets = 0
    for message in appended:
        if groups[-1] and octets + len(message.octets) > STAGED_OCTETS:
            groups.append([])
            octets = 0
        groups[-1].append(message)
        octets += len(message.octets)
    return groups


def _parse(cursor: Cursor) -> Args:
    cursor.space()
    path = cursor.mailbox()
    found: list[Message] = []
    while not found or not cursor.at_end():
        cursor.space()
        flags: tuple[str, ...] = ()
        date = None
        if cursor.peek(b"("):
            flags = cursor.flags()
            cursor.space()
        if cursor.peek(b'"'):
            date = cursor.date_time()
            cursor.space()
        literal = cursor.literal()
        if literal is None:
            raise cursor.error("a message must be a literal")
        found.append(Message(literal.octets, flags, date))
    return Args(path, tuple(found))


APPEND = Feature((), rfc=9051, commands=(Command("APPEND", AUTHENTICATED, _parse, append),))
MULTIAPPEND = Feature(("MULTIAPPEND",), rfc=3502)
