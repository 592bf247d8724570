"""Received octets by their SHA-256: written once, shared by copies and recipients, read whole or in slices."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from sqlalchemy import text

from services.core.ids import AccountId, BlobId, Fid
from services.core.store.engine import Store

# The octets become durable with the commit that names them (WAL order), so this one need not wait for the disk.
# A blob that exists is touched, which keeps the sweeper from taking it between staging and accepting.
# Driver call: staging is half of what the doors ask of Postgres; a bound executemany took twice the time.
_STAGE = """
WITH lazy AS (SELECT set_config('synchronous_commit', $4, true))
INSERT INTO blobs (blob_id, size, content)
SELECT b.* FROM lazy, unnest($1::bytea[], $2::bigint[], $3::bytea[]) AS b(blob_id, size, content)
ORDER BY b.blob_id
ON CONFLICT (blob_id) DO UPDATE SET staged_at = now()
"""

_READ = "SELECT blob_id, content FROM blobs WHERE blob_id = ANY($1::bytea[])"

_OF_MESSAGES = """
SELECT DISTINCT o.blob_id FROM items i JOIN objects o USING (account_id, object_id)
WHERE i.account_id = $1 AND i.fid = $2 AND i.uid = ANY($3::bigint[])
"""

_UNNAMED = """
b.staged_at < now() - make_interval(secs => :age_s)
  AND NOT EXISTS (SELECT FROM objects o WHERE o.blob_id = b.blob_id)
  AND NOT EXISTS (SELECT FROM spool s WHERE s.blob_id = b.blob_id)
  AND NOT EXISTS (SELECT FROM quarantine h WHERE h.blob_id = b.blob_id)
"""
_FIND = text(f"SELECT b.blob_id FROM blobs b WHERE {_UNNAMED} LIMIT 50000")  # noqa: S608 - constant
_SWEEP = text(f"DELETE FROM blobs b WHERE b.blob_id = ANY(:blob_ids) AND {_UNNAMED}")  # noqa: S608 - constant


def blob_id(content: bytes) -> BlobId:
    """The name of these octets."""
    return BlobId(hashlib.sha256(content).digest())


async def stage(store: Store, contents: Sequence[bytes], *, synchronous: bool = False) -> list[BlobId]:
    """Keep the octets, each under its hash, idempotently; durable with the caller's next commit on this Postgres.

    `synchronous`: durable on return, for blobs that live on another node than the rows that name them.
    """
    named = [(blob_id(content), content) for content in contents]
    await stage_named(store, named, synchronous=synchronous)
    return [name for name, _ in named]


async def stage_named(store: Store, named: Sequence[tuple[BlobId, bytes]], *, synchronous: bool = False) -> None:
    """As `stage`, for octets whose hash is known."""
    unique = dict(named)  # one statement may not touch a row twice
    async with store.driver("blobs.stage") as conn:
        await conn.execute(
            _STAGE,
            list(unique),
            [len(content) for content in unique.values()],
            list(unique.values()),
            "on" if synchronous else "off",
        )


async def read(store: Store, ids: Sequence[BlobId]) -> dict[BlobId, bytes]:
    """The octets of each blob that exists."""
    async with store.driver("blobs.read") as conn:
        rows = await conn.fetch(_READ, ids)
    return {BlobId(row[0]): row[1] for row in rows}


async def of_messages(store: Store, account_id: AccountId, fid: Fid, uids: Sequence[int]) -> list[BlobId]:
    """The blobs of those of the messages that exist."""
    async with store.driver("blobs.of_messages") as conn:
        return [BlobId(row[0]) for row in await conn.fetch(_OF_MESSAGES, account_id, fid, uids)]


async def unnamed(store: Store, older_than_s: float = 86_400) -> list[BlobId]:
    """What nothing names and was staged longer ago than that."""
    async with store.query("blobs.unnamed") as conn:
        return [BlobId(row[0]) for row in await conn.execute(_FIND, {"age_s": older_than_s})]


async def sweep(store: Store, found: Sequence[BlobId], older_than_s: float = 86_400) -> int:
    """Remove those of `found` that are `unnamed` still; how many.

    Whoever calls has found them a while ago, longer than any message takes from its staging to its acceptance: were the
    clock set forward by days, what has just been staged would look old.
    """
    async with store.begin("blobs.sweep") as conn:
        return (await conn.execute(_SWEEP, {"blob_ids": list(found), "age_s": older_than_s})).rowcount
