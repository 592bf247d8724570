"""STATUS (RFC 9051 6.3.11) and what it can tell, SIZE (RFC 8438) and HIGHESTMODSEQ (RFC 7162) included."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from services.core.foldername import canonical
from services.core.ids import Fid
from services.imap import queries
from services.imap.feature import AUTHENTICATED, Command, Feature
from services.imap.queries import FolderRow
from services.imap.session import Refused, Session
from services.imap.wire.cursor import Cursor
from services.imap.wire.responses import Bad, Ok, Response, StatusResponse


class Counter(NamedTuple):
    """A status item that the folder's row answers: a STATUS of any folder is one row."""

    name: str
    value: Callable[[FolderRow], int]


class Recents(NamedTuple):
    """RECENT, which the row may not answer."""

    name: str = "RECENT"


COUNTERS = (
    Counter("MESSAGES", lambda row: row.total),
    Counter("UIDNEXT", lambda row: row.uidnext),
    Counter("UIDVALIDITY", lambda row: row.uidvalidity),
    Counter("UNSEEN", lambda row: row.unseen),
)


class Args(NamedTuple):
    """A mailbox, and what is asked of it."""

    path: str
    items: tuple[str, ...]


async def status(session: Session, args: Args) -> AsyncGenerator[Response, None]:
    """Say how a mailbox is without opening it."""
    row = await session.folder(args.path)
    if "HIGHESTMODSEQ" in args.items:
        session.enable("CONDSTORE")  # RFC 7162 3.1
    for response in await statuses(session, [(canonical(args.path), row)], args.items):
        yield response
    yield Ok("That is how it is.")


async def statuses(
    session: Session, rows: Sequence[tuple[str, FolderRow]], wanted: Iterable[str]
) -> list[StatusResponse]:
    """STATUS responses for several folders; at most one query for all."""
    known = session.services.registry.status_items
    wanted = tuple(wanted)
    for name in wanted:
        if name not in known:
            raise Refused(Bad(f"{name} is no status item."))
    recent: Mapping[Fid, int] = {}
    if "RECENT" in wanted:
        recent = await queries.recent(session.store, session.account_id, [row for _, row in rows])
    return [
        StatusResponse(path, tuple((name, _value(known[name], row, recent)) for name in wanted)) for path, row in rows
    ]


def _value(item: Counter | Recents, row: FolderRow, recent: Mapping[Fid, int]) -> int:
    return item.value(row) if isinstance(item, Counter) else recent[row.fid]


def parse_items(cursor: Cursor) -> tuple[str, ...]:
    """A list of status items, none twice; whether there are such is seen later."""
    return tuple(dict.fromkeys(name.upper() for name in cursor.parenthesised(cursor.atom)))


def _parse(cursor: Cursor) -> Args:
    cursor.space()
    path = cursor.mailbox()
    cursor.space()
    args = Args(path, parse_items(cursor))
    cursor.end()
    return args


STATUS = Feature(
    (),
    rfc=9051,
    commands=(Command("STATUS", AUTHENTICATED, _parse, status),),
    status_items=(*COUNTERS, Recents()),
)
SIZE = Feature(("STATUS=SIZE",), rfc=8438, status_items=(Counter("SIZE", lambda row: row.octets),))
MODSEQ = Counter("HIGHESTMODSEQ", lambda row: max(row.content_cn, 1))
