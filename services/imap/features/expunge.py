"""EXPUNGE (RFC 9051 6.4.3) and UID EXPUNGE (RFC 4315 2.1)."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from services.core.store.messages import expunge_deleted
from services.imap.feature import SELECTED, Command, Feature
from services.imap.session import Session
from services.imap.wire.cursor import Cursor
from services.imap.wire.responses import Code, Ok, Response
from services.imap.wire.sequence import SequenceSet


async def expunge(session: Session, messages: SequenceSet | None) -> AsyncGenerator[Response, None]:
    """Remove what bears \\Deleted; completion tells which. `messages`: only among these uids."""
    selected = session.writable()
    uids = None
    if messages is not None:
        view = await session.view()
        uids = view.pick(session.spans(messages, by_uid=True))
    async with session.store.begin("imap.expunge") as conn:
        gone = await expunge_deleted(conn, session.account_id, selected.fid, uids)
    if gone:
        session.told(selected.fid, gone[-1].cn)
    if gone and session.dialect.vanished:
        # RFC 7162 3.2.8: the number that the folder has reached.
        yield Ok("Expunged.", Code("HIGHESTMODSEQ", str(gone[-1].cn)))
        return
    yield Ok("Expunged.")


def _parse_uids(cursor: Cursor) -> SequenceSet:
    cursor.space()
    messages = cursor.sequence_set()
    cursor.end()
    return messages


FEATURE = Feature(
    (),
    rfc=9051,
    commands=(
        Command("EXPUNGE", SELECTED, Cursor.end, expunge),
        Command("UID EXPUNGE", SELECTED, _parse_uids, expunge),
    ),
)
