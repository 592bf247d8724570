"""What POP reads: the INBOX as it is now, and messages by their numbers."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, TextClause, text

from services.core.ids import AccountId, Fid, Uid
from services.core.store.engine import Store, StoreUnavailable
from services.pop.maildrop import Body, Inbox

# Two arrays, not a row a message: a maildrop of 100,000 costs a session 1.6 MB.
_INBOX = text("""
SELECT f.fid, f.uidvalidity, i.uids, i.sizes
FROM folders f CROSS JOIN LATERAL (
  SELECT array_agg(uid ORDER BY uid) AS uids, array_agg(size ORDER BY uid) AS sizes
  FROM items WHERE account_id = :account_id AND fid = f.fid
) i
WHERE f.account_id = :account_id AND f.role = 'inbox'
""")
_BODIES = text("""
SELECT i.uid, o.header_length, o.prefix || b.content
FROM items i JOIN objects o USING (account_id, object_id) JOIN blobs b USING (blob_id)
WHERE i.account_id = :account_id AND i.fid = :fid AND i.uid = ANY(CAST(:uids AS bigint[]))
""")


async def inbox(store: Store, account_id: AccountId) -> Inbox | None:
    """The account's INBOX, which exists as long as the account does. Raises `StoreUnavailable`."""
    row = next(iter(await _ask(store, "pop.inbox", _INBOX, {"account_id": account_id})), None)
    return None if row is None else Inbox(row[0], row[1], array("q", row[2] or ()), array("q", row[3] or ()))


async def bodies(store: Store, account_id: AccountId, fid: Fid, uids: Sequence[Uid]) -> dict[Uid, Body]:
    """Those of the messages that are still there. Raises `StoreUnavailable`."""
    rows = await _ask(store, "pop.bodies", _BODIES, {"account_id": account_id, "fid": fid, "uids": list(uids)})
    return {row[0]: Body(row[0], row[1], row[2]) for row in rows}


async def _ask(
    store: Store, name: str, question: TextClause, values: dict[str, Any]
) -> Sequence[Row[*tuple[Any, ...]]]:
    # Asked twice: the pool's first connection may be one that Postgres's last restart has ended.
    try:
        async with store.query(name) as conn:
            return (await conn.execute(question, values)).all()
    except StoreUnavailable:
        async with store.query(name) as conn:
            return (await conn.execute(question, values)).all()
