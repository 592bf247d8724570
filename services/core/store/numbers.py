"""The account's numbers: the lock that every writing transaction takes first, and the taking."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.core.ids import AccountId
from services.core.store.engine import Driver

LIMIT = 1 << 48  # MAPI carries counters in 6 octets; EXCHANGE protocols share these numbers

_LOCK = "SELECT last_cn FROM account_seq WHERE account_id = $1 FOR UPDATE"

_TAKE = text("""
UPDATE account_seq SET last_cn = last_cn + :cns, last_objid = last_objid + :objids, cn_mailbox = last_cn + :cns
WHERE account_id = :account_id
RETURNING last_cn - :cns + 1 AS cn, last_objid - :objids + 1 AS objid
""")


class NoSuchAccount(Exception):
    """No account has this number."""


class Numbers(NamedTuple):
    """The first of each range that was taken."""

    cn: int
    objid: int


async def lock(conn: AsyncConnection, account_id: AccountId) -> int:
    """Hold the account's write lock to the end of the transaction; returns its last change number.

    Must be a statement of its own before any row is read that the transaction will change: a later statement sees
    what the lock's former holder committed, the one that waited for the lock does not.
    """
    last = (await conn.exec_driver_sql(_LOCK, (account_id,))).scalar_one_or_none()
    if last is None:
        raise NoSuchAccount(account_id)
    return int(last)


async def hold(conn: Driver, account_id: AccountId) -> None:
    """As `lock`, on a bare connection that is in a transaction."""
    if await conn.fetchval(_LOCK, account_id) is None:
        raise NoSuchAccount(account_id)


async def take(conn: AsyncConnection, account_id: AccountId, *, cns: int, objids: int) -> Numbers:
    """Take ranges of change numbers and object ids for folder changes; locks the account as `lock` does."""
    row = (await conn.execute(_TAKE, {"account_id": account_id, "cns": cns, "objids": objids})).one_or_none()
    if row is None:
        raise NoSuchAccount(account_id)
    return Numbers(row.cn, row.objid)
