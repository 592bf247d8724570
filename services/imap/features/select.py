"""SELECT and EXAMINE (RFC 9051 6.3.2), CLOSE and UNSELECT, with CONDSTORE and QRESYNC (RFC 7162)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import NamedTuple

from services.core.foldername import canonical
from services.core.store.messages import expunge_deleted
from services.imap import queries
from services.imap.feature import AUTHENTICATED, SELECTED, Command, Feature
from services.imap.features import status
from services.imap.queries import FolderRow
from services.imap.session import Refused, Selected, Session
from services.imap.view import FlagRow, View
from services.imap.wire.cursor import Cursor
from services.imap.wire.responses import Bad, Code, Exists, Ok, Raw, Recent, Response, Vanished
from services.imap.wire.sequence import Ranges, SequenceSet, holds


class Known(NamedTuple):
    """What a QRESYNC client remembers of the folder (RFC 7162 3.2.5)."""

    uidvalidity: int
    modseq: int
    uids: SequenceSet | None = None
    seq_match: tuple[SequenceSet, SequenceSet] | None = None  # sequence numbers and the uids they had


class Args(NamedTuple):
    """A mailbox and how to open it."""

    path: str
    condstore: bool = False
    known: Known | None = None


async def _open(session: Session, args: Args, *, read_only: bool) -> AsyncGenerator[Response, None]:
    was_selected = session.opened is not None
    await session.leave()
    if was_selected:
        # RFC 7162 3.2.11: from here on responses speak of the new mailbox.
        yield Ok("Left the other mailbox.", Code("CLOSED"), untagged=True)
    if args.known is not None and "QRESYNC" not in session.enabled:
        raise Refused(Bad("QRESYNC was not enabled."))  # RFC 7162 3.2.5
    row = await session.folder(args.path)
    if args.condstore or args.known:
        session.enable("CONDSTORE")
    view, recent = await _view(session, row, read_only=read_only)
    session.open(Selected(row.fid, canonical(args.path), view, read_only, row.role))
    yield Raw(view.keywords.lines())
    yield Exists(view.total)
    yield Recent(recent)
    yield Ok("UIDs are valid.", Code("UIDVALIDITY", str(row.uidvalidity)), untagged=True)
    yield Ok("The next uid.", Code("UIDNEXT", str(row.uidnext)), untagged=True)
    yield Ok("The highest modseq.", Code("HIGHESTMODSEQ", str(max(row.content_cn, 1))), untagged=True)
    if args.known is not None and args.known.uidvalidity == row.uidvalidity:
        for response in await _resync(session, args.known):
            yield response
    mode = Code("READ-ONLY") if read_only else Code("READ-WRITE")
    yield Ok("Selected.", mode)


async def _view(session: Session, row: FolderRow, *, read_only: bool) -> tuple[View, int]:
    """The view of a folder just opened: counters only, whatever its size, and takes the \\Recent mark."""
    recent = (await queries.recent(session.store, session.account_id, [row]))[row.fid]
    first_recent = row.recent_uid
    if recent and not read_only:
        first_recent = await queries.claim_recent(session.store, session.account_id, row.fid, row.uidnext)
        if first_recent >= row.uidnext:
            recent = 0  # another session was told first
    view = View(
        cn=row.content_cn,
        uidnext=row.uidnext,
        total=row.total,
        recent=recent,
        first_recent=first_recent,
        read_only=read_only,
    )
    return view, recent


async def _resync(session: Session, known: Known) -> list[Response]:
    """What a client that has been away must hear (RFC 7162 3.2.5.1): what vanished, then which flags moved."""
    selected = session.selected
    ranges = known.uids.resolve(selected.view.uidnext - 1) if known.uids is not None else None
    gone = await _gone(session, known, ranges)
    out: list[Response] = [Vanished(gone, earlier=True)] if gone else []
    changes = await queries.changes(
        session.store, session.account_id, selected.fid, known.modseq, selected.view.uidnext
    )
    rows: list[FlagRow] = [] if changes is None else changes.flags
    if rows:
        view = await session.view()
        wanted = rows if ranges is None else [row for row in rows if holds(ranges, row.uid)]
        lines = view.flag_lines(wanted, session.dialect)
        out += [*session.news(), Raw(lines)]
    return out


async def _gone(session: Session, known: Known, ranges: Ranges | None) -> Sequence[int]:
    selected = session.selected
    gone = await queries.vanished(session.store, session.account_id, selected.fid, known.modseq, selected.view.cn)
    # A message that came and went while the client was away was never seen by it; saying so is allowed and harmless.
    return gone if ranges is None else [uid for uid in gone if holds(ranges, uid)]


async def select(session: Session, args: Args) -> AsyncGenerator[Response, None]:
    """Open a mailbox for reading and writing."""
    async for response in _open(session, args, read_only=False):
        yield response


async def examine(session: Session, args: Args) -> AsyncGenerator[Response, None]:
    """Open a mailbox read-only."""
    async for response in _open(session, args, read_only=True):
        yield response


async def close(session: Session, _: None) -> AsyncGenerator[Response, None]:
    """Remove what bears \\Deleted, silently, and leave the mailbox (RFC 9051 6.4.1)."""
    selected = session.selected
    if not selected.read_only:
        async with session.store.begin("imap.close") as conn:
            gone = await expunge_deleted(conn, session.account_id, selected.fid)
        if gone:
            session.told(selected.fid, gone[-1].cn)
    await session.leave()
    yield Ok("Closed.")


async def unselect(session: Session, _: None) -> AsyncGenerator[Response, None]:
    """Leave the mailbox and keep everything (RFC 9051 6.4.2)."""
    await session.leave()
    yield Ok("Unselected.")


def _parse(cursor: Cursor) -> Args:
    cursor.space()
    args = Args(cursor.mailbox())
    if not cursor.at_end():
        cursor.space()
        cursor.expect(b"(")
        while True:
            args = _parameter(cursor, args)
            if cursor.accept(b")"):
                break
            cursor.space()
    cursor.end()
    return args


def _parameter(cursor: Cursor, args: Args) -> Args:
    match cursor.atom().upper():
        case "CONDSTORE":
            return args._replace(condstore=True)
        case "QRESYNC":
            cursor.space()
            return args._replace(known=_known(cursor))
        case other:
            raise cursor.error(f"{other} is no SELECT parameter")


def _known(cursor: Cursor) -> Known:
    cursor.expect(b"(")
    uidvalidity = cursor.number()
    cursor.space()
    known = Known(uidvalidity, cursor.number())
    if cursor.accept(b" "):
        if not cursor.peek(b"("):
            known = known._replace(uids=cursor.sequence_set())
        if known.uids is None or cursor.accept(b" "):
            cursor.expect(b"(")
            seqs = cursor.sequence_set()
            cursor.space()
            known = known._replace(seq_match=(seqs, cursor.sequence_set()))
            cursor.expect(b")")
    cursor.expect(b")")
    return known


SELECT = Feature(
    (),
    rfc=9051,
    commands=(
        Command("SELECT", AUTHENTICATED, _parse, select),
        Command("EXAMINE", AUTHENTICATED, _parse, examine),
        Command("CLOSE", SELECTED, Cursor.end, close),
    ),
)
UNSELECT = Feature(("UNSELECT",), rfc=3691, commands=(Command("UNSELECT", SELECTED, Cursor.end, unselect),))
CONDSTORE = Feature(("CONDSTORE",), rfc=7162, status_items=(status.MODSEQ,), enable="CONDSTORE")
QRESYNC = Feature(("QRESYNC",), rfc=7162, enable="QRESYNC")
