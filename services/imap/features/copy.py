"""COPY, MOVE and their UID forms (RFC 9051 6.4.7, 6.4.8) with COPYUID (RFC 4315)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import NamedTuple

from services.core.store import messages
from services.core.store.messages import Copied
from services.imap import queries
from services.imap.feature import SELECTED, Command, Feature
from services.imap.session import Refused, Session
from services.imap.view import number_set
from services.imap.wire.cursor import Cursor
from services.imap.wire.responses import Code, No, Ok, Response
from services.imap.wire.sequence import SequenceSet


class Args(NamedTuple):
    """Which messages, and where to."""

    messages: SequenceSet
    by_uid: bool
    path: str


def _copyuid(uidvalidity: int, copied: Sequence[Copied]) -> Code:
    # RFC 4315 3: both sets in the same order; the store copies in uid order.
    source = number_set([each.source for each in copied])
    return Code("COPYUID", b"%d %b %b" % (uidvalidity, source, number_set([each.uid for each in copied])))


async def copy(session: Session, args: Args) -> AsyncGenerator[Response, None]:
    """Put messages into another mailbox as well, all or none."""
    selected = session.selected
    into = await session.folder(args.path, create=True)
    view = await session.view()
    uids = view.pick(session.spans(args.messages, by_uid=args.by_uid))
    if not uids:
        yield Ok("No such messages.")
        return
    await _check_room(session, uids)
    async with session.store.begin("imap.copy") as conn:
        copied = await messages.copy(conn, session.account_id, selected.fid, uids, into.fid)
    if not copied:
        yield No("The messages are gone.", Code("EXPUNGEISSUED"))
        return
    session.told(into.fid, copied[-1].cn)
    await session.placed(into, [each.uid for each in copied])
    yield Ok("Copied.", _copyuid(into.uidvalidity, copied))


async def move(session: Session, args: Args) -> AsyncGenerator[Response, None]:
    """Put messages into another mailbox and take them out of this one, in one step."""
    selected = session.writable()
    into = await session.folder(args.path, create=True)
    view = await session.view()
    uids = view.pick(session.spans(args.messages, by_uid=args.by_uid))
    if not uids:
        yield Ok("No such messages.")
        return
    async with session.store.begin("imap.move") as conn:
        moved = await messages.move(conn, session.account_id, selected.fid, uids, into.fid)
    if not moved:
        yield No("The messages are gone.", Code("EXPUNGEISSUED"))
        return
    last = moved[-1].cn + len(moved)  # the tombstones follow the copies
    session.told(into.fid, last)
    session.told(selected.fid, last)
    await session.placed(into, [each.uid for each in moved])
    # RFC 6851 4.3: COPYUID in an untagged OK, before the EXPUNGE responses that completion brings.
    yield Ok("Moved.", _copyuid(into.uidvalidity, moved), untagged=True)
    yield Ok("Moved.")


async def _check_room(session: Session, uids: list[int]) -> None:
    which = queries.Which(uids[0], uids[-1], uids)
    rows = await queries.rows(session.store, session.account_id, session.selected.fid, which, ("uid", "size"))
    if not await queries.has_room(session.store, session.account_id, sum(row[1] for row in rows)):
        raise Refused(No("The mailbox quota is used up.", Code("OVERQUOTA")))


def _parse(cursor: Cursor, *, by_uid: bool) -> Args:
    cursor.space()
    messages = cursor.sequence_set()
    cursor.space()
    path = cursor.mailbox()
    cursor.end()
    return Args(messages, by_uid, path)


COPY = Feature(
    ("UIDPLUS",),
    rfc=4315,
    commands=(
        Command("COPY", SELECTED, partial(_parse, by_uid=False), copy),
        Command("UID COPY", SELECTED, partial(_parse, by_uid=True), copy),
    ),
)
MOVE = Feature(
    ("MOVE",),
    rfc=6851,
    commands=(
        Command("MOVE", SELECTED, partial(_parse, by_uid=False), move),
        Command("UID MOVE", SELECTED, partial(_parse, by_uid=True), move),
    ),
)
