"""Accepted messages on their way: `spool` and one row for each recipient that is not done."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.core.ids import AccountId, BlobId, SpoolId
from services.core.store.engine import Driver, Store


class Recipient(NamedTuple):
    """One recipient, routed: `account_id` set means a mailbox here, None another domain."""

    address: str
    account_id: AccountId | None
    notify: str | None = None
    orcpt: str | None = None
    forwarded_by: str | None = None  # the domain of ours whose alias led to that other domain


class Entry(NamedTuple):
    """One message as a door accepts it."""

    spool_id: SpoolId
    blob_id: BlobId
    prefix: bytes  # header lines that stand in front of the blob's octets
    size: int  # octets of prefix + blob
    sender: str  # empty: the null reverse-path
    sender_account_id: AccountId | None
    door: str
    client: str
    junk: bool
    recipients: tuple[Recipient, ...]
    ret: str | None = None
    envid: str | None = None
    smtputf8: bool = False
    traceparent: str = ""
    requiretls: bool = False  # RFC 8689 3: only over authenticated TLS, or back


class Due(NamedTuple):
    """One recipient of one entry that delivery has to serve, with what it needs of the entry."""

    spool_id: SpoolId
    n: int
    address: str
    account_id: AccountId
    notify: str | None
    orcpt: str | None
    attempts: int
    blob_id: BlobId
    prefix: bytes
    size: int
    sender: str
    junk: bool
    ret: str | None
    envid: str | None
    received_at: datetime
    traceparent: str
    active: bool  # False: the account is gone or suspended
    used_octets: int
    quota_octets: int | None
    delivered: bool = False  # placed before, by a ticket that was not acknowledged


# Driver calls: every message passes here, and a group of accepts is one statement whatever its size.
#
# These tables are empty most of the time, and a planner that has seen them so takes reading all of a table, or of an
# index of some of its rows, to be as good as looking one up: in a burst it is thousands of times as dear. So statements
# that know the ids leave it no choice. IS TRUE keeps a condition from matching that of such an index, and an IN from
# becoming a join.
_INSERT = """
WITH entries AS (
  INSERT INTO spool (spool_id, blob_id, prefix, size, sender, sender_account_id, door, client, junk, ret, envid,
    smtputf8, traceparent, requiretls)
  SELECT * FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::bigint[], $5::text[], $6::bigint[], $7::text[],
    $8::text[], $9::boolean[], $10::text[], $11::text[], $12::boolean[], $13::text[], $14::boolean[])
)
INSERT INTO spool_recipients (due_at, spool_id, n, address, account_id, notify, orcpt, forwarded_by)
SELECT now() + make_interval(secs => $15), r.*
FROM unnest($16::text[], $17::integer[], $18::text[], $19::bigint[], $20::text[], $21::text[], $22::text[]) AS r
"""

_DUE_LOCAL = """
SELECT s.spool_id, r.n, r.address, r.account_id, r.notify, r.orcpt, r.attempts, s.blob_id, s.prefix, s.size, s.sender,
  s.junk, s.ret, s.envid, s.received_at, s.traceparent, coalesce(a.status = 'active', false),
  coalesce(q.used_octets, 0), a.quota_octets,
  EXISTS (SELECT FROM deliveries d WHERE (d.account_id, d.spool_id, d.n) = (r.account_id, r.spool_id, r.n))
FROM spool s JOIN spool_recipients r USING (spool_id)
  LEFT JOIN accounts a ON a.account_id = r.account_id LEFT JOIN account_seq q ON q.account_id = r.account_id
WHERE s.spool_id = ANY($1::text[]) AND r.spool_id = ANY($1::text[]) AND (r.account_id IS NOT NULL) IS TRUE
ORDER BY spool_id, n
"""


_ONE_BY_ONE = """
r.spool_id = ANY(ARRAY(SELECT spool_id FROM {0})) AND ((r.spool_id, r.n) IN (SELECT spool_id, n FROM {0})) IS TRUE
""".strip()


def those_of(table: str) -> str:
    """SQL: the rows of `spool_recipients r` that `table` names by spool_id and n, found one by one, never by a join."""
    return _ONE_BY_ONE.format(table)


_FINISHING = f"""
WITH {{lazy}} done AS (
  DELETE FROM spool_recipients r
  WHERE {those_of("unnest($1::text[], $2::integer[]) AS told(spool_id, n)")} RETURNING r.spool_id, r.n
), empty AS (
  DELETE FROM spool s WHERE s.spool_id = ANY(ARRAY(SELECT spool_id FROM done)) AND (
    SELECT r.n FROM spool_recipients r
    WHERE r.spool_id = s.spool_id AND (r.spool_id, r.n) NOT IN (SELECT * FROM done) LIMIT 1) IS NULL
  RETURNING s.spool_id
)
SELECT done.spool_id, done.spool_id NOT IN (SELECT spool_id FROM empty) FROM done {{join}}
"""  # noqa: S608 - constant
_FINISH = _FINISHING.format(lazy="", join="")

# A failure takes the mark that a delivery would take: of two tickets at once, one cannot place what the other bounces.
_CLAIM = """
INSERT INTO deliveries (account_id, spool_id, n) SELECT * FROM unnest($1::bigint[], $2::text[], $3::integer[])
ORDER BY 1, 2, 3 ON CONFLICT DO NOTHING RETURNING n
"""

# What is delivered is marked in `deliveries` with the delivery itself. Losing this commit in a crash only means that a
# ticket finds the rows once more and places nothing, so it need not wait for the disk.
_FINISH_LAZILY = _FINISHING.format(
    lazy="lazy AS (SELECT set_config('synchronous_commit', 'off', true)),", join="CROSS JOIN lazy"
)

_POSTPONE = text("""
UPDATE spool_recipients
SET attempts = attempts + 1, last_reply = :reason, due_at = now() + make_interval(secs => :wait_s)
WHERE spool_id = :spool_id AND n = ANY(CAST(:ns AS integer[]))
""")

# SKIP LOCKED and the new due_at let every pod sweep without asking the others.
# Due later than its attempts explain (20 s at first, from 30 s doubling to an hour after failures): the clock was ahead
# when that was written, and nobody is to wait until the old time has come again.
_SWEEP = text(
    """
WITH overdue AS (
  SELECT spool_id, n FROM spool_recipients WHERE due_at < now() AND account_id IS NOT NULL
  ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED
), stranded AS (
  SELECT spool_id, n FROM spool_recipients
  WHERE account_id IS NOT NULL AND due_at > now() + interval '2 minutes'
    AND due_at > now() + make_interval(secs => 60 * (1 + 2 ^ least(attempts, 6)))
  LIMIT :limit FOR UPDATE SKIP LOCKED
), due AS (
  SELECT spool_id, n FROM overdue UNION ALL SELECT spool_id, n FROM stranded
), touched AS (
  UPDATE spool_recipients r SET due_at = now() + make_interval(secs => :wait_s)
  WHERE {those} RETURNING r.spool_id
)
SELECT DISTINCT spool_id FROM touched ORDER BY spool_id
""".format(those=those_of("due"))  # noqa: S608 - constant
)

# Two workers who finish recipients of one entry at once each see the other's row and leave the entry. Each looks again
# when its own commit is done: of the two, the later one sees that nothing is left.
_FORGET_EMPTY = """
DELETE FROM spool s WHERE s.spool_id = ANY($1::text[])
  AND NOT EXISTS (SELECT FROM spool_recipients r WHERE r.spool_id = s.spool_id)
"""
# Of those who were killed before they looked.
_ORPHANS = text("""
DELETE FROM spool s WHERE s.received_at < now() - interval '1 minute'
  AND NOT EXISTS (SELECT FROM spool_recipients r WHERE r.spool_id = s.spool_id)
""")

_TIDY_LOCK = text("SELECT pg_try_advisory_xact_lock(7233920102)")

_FORGET_DELIVERIES = text("""
DELETE FROM deliveries d WHERE d.at < now() - interval '7 days'
  AND NOT EXISTS (SELECT FROM spool s WHERE s.spool_id = d.spool_id)
""")


async def insert(store: Store, entries: Sequence[Entry], due_in_s: float) -> None:
    """Commit the entries, all or none, synchronously; the sweeper looks at them after `due_in_s`."""
    async with store.driver("spool.insert") as conn:
        await insert_within(conn, entries, due_in_s)


async def insert_within(conn: Driver, entries: Sequence[Entry], due_in_s: float) -> None:
    """The same within the caller's transaction."""
    rows = [e[:9] + e[10:] for e in entries]
    recipients = [(e.spool_id, n, *r) for e in entries for n, r in enumerate(e.recipients)]
    columns = (*map(list, zip(*rows, strict=True)), due_in_s, *map(list, zip(*recipients, strict=True)))
    await conn.execute(_INSERT, *columns)


async def due_local(store: Store, spool_ids: Sequence[SpoolId]) -> list[Due]:
    """The recipients of these entries that have a mailbox here and are not done."""
    async with store.driver("spool.due_local") as conn:
        return [Due(*row) for row in await conn.fetch(_DUE_LOCAL, spool_ids)]


async def finish(store: Store, done: Sequence[tuple[SpoolId, int]], *, lazily: bool = True) -> None:
    """Forget recipients that are served, and entries that have none left.

    `lazily`: a crash may bring them back, which harms nobody who marks in `deliveries` what is done.
    """
    async with store.driver("spool.finish") as conn:
        await forget_empty(conn, await finish_within(conn, done, lazily=lazily))


class Finished(NamedTuple):
    """How many recipients were there to be forgotten, and the entries that seem to have others."""

    recipients: int
    others: list[SpoolId]


async def finish_within(conn: Driver, done: Sequence[tuple[SpoolId, int]], *, lazily: bool = False) -> Finished:
    """The same within the caller's transaction, behind which the caller owes a `forget_empty`."""
    if not done:
        return Finished(0, [])
    statement = _FINISH_LAZILY if lazily else _FINISH
    rows = await conn.fetch(statement, [spool_id for spool_id, _ in done], [n for _, n in done])
    return Finished(len(rows), sorted({SpoolId(spool_id) for spool_id, others in rows if others}))


async def forget_empty(conn: Driver, finished: Finished) -> None:
    """Forget those of the entries whose other recipients were finished at the same time; outside any transaction."""
    if finished.others:
        await conn.execute(_FORGET_EMPTY, finished.others)


class _Overtaken(Exception):
    """Another has settled one of these recipients: nothing of ours is kept."""


async def finish_with_notice(
    store: Store, told: Sequence[Due], notice: Entry, due_in_s: float, *, failed: bool
) -> bool:
    """Forget these recipients of one entry and accept the notice about them in one commit.

    False, and nothing kept, if another settled one of them before: `failed` ones must not have been delivered.
    """
    spool_ids, ns = [due.spool_id for due in told], [due.n for due in told]
    try:
        async with store.driver("spool.finish_with_notice") as conn:
            async with conn.transaction():
                marks = ([due.account_id for due in told], spool_ids, ns)
                if failed and len(await conn.fetch(_CLAIM, *marks)) < len(told):
                    raise _Overtaken
                finished = await finish_within(conn, [(due.spool_id, due.n) for due in told])
                if finished.recipients < len(told):
                    raise _Overtaken
                await insert_within(conn, [notice], due_in_s)
            await forget_empty(conn, finished)
    except _Overtaken:
        return False
    return True


async def postpone(conn: AsyncConnection, spool_id: SpoolId, ns: Sequence[int], wait_s: float, reason: str) -> None:
    """Count a failed attempt; the sweeper looks again after `wait_s`."""
    await conn.execute(_POSTPONE, {"spool_id": spool_id, "ns": list(ns), "wait_s": wait_s, "reason": reason})


async def sweep(conn: AsyncConnection, *, wait_s: float, limit: int = 1000) -> list[SpoolId]:
    """Entries with mailboxes that are due and that no ticket seems to serve; each is due again after `wait_s`."""
    return list((await conn.execute(_SWEEP, {"wait_s": wait_s, "limit": limit})).scalars())


async def tidy(conn: AsyncConnection) -> None:
    """Remove entries without recipients, and delivery marks that no ticket can ask for any more.

    Does nothing while another process is at it.
    """
    if not (await conn.execute(_TIDY_LOCK)).scalar_one():
        return
    await conn.execute(_ORPHANS)
    await conn.execute(_FORGET_DELIVERIES)
