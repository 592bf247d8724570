"""A store beside the live one: what an account holds there, read in pages and never written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import NamedTuple

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import ArgumentError, DBAPIError

from services.core import foldername
from services.core.ids import AccountId, BlobId, Fid, Uid
from services.core.store import folders, migrate
from services.core.store.engine import Store, StoreUnavailable
from services.core.store.flags import Flag, Kind

PAGE = 5000

# A digest of all octets: of the trace headers in front and of the hash that names the rest.
_HELD = text("""
SELECT i.fid, i.uid, i.size, sha256(o.prefix || o.blob_id)
FROM items i JOIN objects o USING (account_id, object_id)
WHERE i.account_id = :account_id AND (i.fid, i.uid) > (:fid, :uid) AND i.kind = :mail
  AND (CAST(:since AS timestamptz) IS NULL OR i.internal_date >= CAST(:since AS timestamptz))
ORDER BY i.fid, i.uid LIMIT :limit
""")

_MESSAGES = text("""
SELECT o.blob_id, o.prefix, i.internal_date, i.flags, i.is_read, i.keywords
FROM items i JOIN objects o USING (account_id, object_id)
WHERE i.account_id = :account_id AND i.fid = :fid AND i.uid = ANY(CAST(:uids AS bigint[]))
ORDER BY i.uid
""")


class Unfit(Exception):
    """Nothing can be brought back from that store; says why."""


class Held(NamedTuple):
    """One message at one place."""

    fid: Fid
    uid: Uid
    size: int
    octets: bytes  # a digest: messages with the same octets have the same
    path: str  # of its folder


class Message(NamedTuple):
    """What a message is made of anew, besides the octets of its blob."""

    blob_id: BlobId
    prefix: bytes
    internal_date: datetime
    flags: Flag
    is_read: bool
    keywords: tuple[str, ...]


@asynccontextmanager
async def opened(url: str, live: Store) -> AsyncIterator[Store]:
    """The store at `url` for the block; raises `Unfit` where it is none, or its schema is not that of `live`."""
    try:
        store = Store(url, pool=1)
    except (ArgumentError, ValueError):
        # Nothing of it is repeated: it may hold a password.
        raise Unfit("the source: expected postgresql://user:password@host:port/database") from None
    try:
        there, here = await _revision(store), await migrate.present(live)
        if there != here:
            raise Unfit(f"the schema of the source is at {there or 'no revision'}, that of the live store at {here}")
        yield store
    finally:
        await store.close()


async def _revision(store: Store) -> str:
    try:
        return await migrate.present(store)
    except (StoreUnavailable, DBAPIError, asyncpg.PostgresError) as error:
        raise Unfit(f"the source cannot be read: {str(error).splitlines()[0]}") from error


async def held(store: Store, account_id: AccountId, since: datetime | None = None) -> AsyncIterator[Held]:
    """Every message of the account in one picture, by folder and UID; of those received `since` then, where given."""
    async with store.read("beside.held") as conn:
        paths = foldername.paths(await folders.list_folders(conn, account_id))
        at = {"account_id": account_id, "mail": int(Kind.MAIL), "since": since, "limit": PAGE, "fid": 0, "uid": 0}
        while rows := (await conn.execute(_HELD, at)).all():
            for row in rows:
                if row.fid in paths:
                    yield Held(row[0], row[1], row[2], row[3], paths[row.fid])
            at |= {"fid": rows[-1].fid, "uid": rows[-1].uid}


async def messages(store: Store, account_id: AccountId, fid: Fid, uids: Sequence[Uid]) -> list[Message]:
    """Those of the messages that exist, in UID order."""
    async with store.read("beside.messages") as conn:
        rows = await conn.execute(_MESSAGES, {"account_id": account_id, "fid": fid, "uids": list(uids)})
        return [Message(row[0], row[1], row[2], Flag(row[3]), row[4], tuple(row[5])) for row in rows]
