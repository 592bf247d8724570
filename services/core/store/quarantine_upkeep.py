"""What held mail needs by itself, in time: digests, notices to senders, expiry. For one caller at a time or several:
each step claims what it acts on in the commit that does it, and keeps nothing where another was first.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from services.core.ids import AccountId, BlobId, SpoolId
from services.core.store.engine import Store
from services.core.store.spool import Entry, insert_within


class Ended(NamedTuple):
    """A recipient for whom a message has expired."""

    spool_id: SpoolId
    address: str
    sender: str
    message_id: str
    traceparent: str


class Owed(NamedTuple):
    """A recipient of whose message a sender who heard 250 is to be told. `state`: held | deleted | expired."""

    spool_id: SpoolId
    n: int
    address: str
    state: str
    notify: str | None
    orcpt: str | None
    blob_id: BlobId
    prefix: bytes
    sender: str
    ret: str | None
    envid: str | None
    traceparent: str
    received_at: datetime
    expires_at: datetime


class Untold(NamedTuple):
    """A held message that an account has not heard of. `secret` signs the link that releases it."""

    account_id: AccountId
    to: str
    spool_id: SpoolId
    n: int
    from_text: str
    subject: str
    kind: str
    reason: str
    score: float
    received_at: datetime
    expires_at: datetime
    secret: bytes


class Count(NamedTuple):
    """How much is held of one kind, and for how long the oldest."""

    kind: str
    messages: int
    oldest_s: float


_EXPIRE = """
WITH taken AS (
  SELECT r.spool_id, r.n, q.sender, q.message_id, q.traceparent
  FROM quarantine q JOIN quarantine_recipients r USING (spool_id)
  WHERE q.expires_at < now() AND r.state = 'held' ORDER BY r.spool_id, r.n LIMIT 1000 FOR UPDATE OF r SKIP LOCKED
)
UPDATE quarantine_recipients r SET state = 'expired', settled_at = now()
FROM taken t WHERE r.spool_id = t.spool_id AND r.n = t.n
RETURNING r.spool_id, r.address, t.sender, t.message_id, t.traceparent
"""

_OWED = """
SELECT r.spool_id, r.n, r.address, r.state, r.notify, r.orcpt, q.blob_id, q.headers || q.prefix, q.sender, q.ret,
  q.envid, q.traceparent, q.received_at, q.expires_at
FROM quarantine q JOIN quarantine_recipients r USING (spool_id)
WHERE {due} ORDER BY r.spool_id, r.n LIMIT 1000
"""
_ENDED = _OWED.format(due="r.owed AND r.state IN ('deleted', 'expired')")
_JUST_HELD = _OWED.format(due="q.notice_due AND r.state = 'held'")

_PAY = """
UPDATE quarantine_recipients SET owed = false WHERE spool_id = $1 AND n = ANY($2::integer[]) AND owed RETURNING n
"""
_PAY_NOTICE = "UPDATE quarantine SET notice_due = false WHERE spool_id = $1 AND notice_due RETURNING spool_id"
# Released or deleted before the notice was made: there is nothing to wait for any more.
_NOTHING_TO_SAY = """
UPDATE quarantine q SET notice_due = false WHERE notice_due
  AND NOT EXISTS (SELECT FROM quarantine_recipients r WHERE r.spool_id = q.spool_id AND r.state = 'held')
"""

_UNTOLD = """
WITH due AS (
  SELECT DISTINCT r.account_id, a.address
  FROM quarantine_recipients r JOIN quarantine q USING (spool_id) JOIN accounts a USING (account_id)
    JOIN domains d ON d.domain = split_part(a.address, '@', 2)
  WHERE r.state = 'held' AND r.told_at IS NULL AND q.expires_at > now() AND a.status = 'active' AND d.digest
    AND NOT EXISTS (SELECT FROM quarantine_recipients o
      WHERE o.account_id = r.account_id AND o.told_at > now() - make_interval(secs => $1)
        AND o.told_at < now() + interval '1 minute')  -- else the clock has been set back since
  LIMIT 100
)
SELECT r.account_id, due.address, r.spool_id, r.n, q.from_text, q.subject, q.kind, q.reason, q.score, q.received_at,
  q.expires_at, q.secret
FROM due JOIN quarantine_recipients r USING (account_id) JOIN quarantine q USING (spool_id)
WHERE r.state = 'held' AND r.told_at IS NULL AND q.expires_at > now()
ORDER BY r.account_id, r.spool_id, r.n
"""
_TELL = """
WITH taken AS (
  SELECT r.spool_id, r.n FROM quarantine_recipients r
    JOIN unnest($1::text[], $2::integer[]) AS u(spool_id, n) ON r.spool_id = u.spool_id AND r.n = u.n
  WHERE r.state = 'held' AND r.told_at IS NULL ORDER BY r.spool_id, r.n FOR UPDATE OF r
)
UPDATE quarantine_recipients r SET told_at = now()
FROM taken t WHERE r.spool_id = t.spool_id AND r.n = t.n RETURNING r.n
"""

# A day later, so that who asks twice hears what was done and not that there never was such a message.
_FORGET = """
WITH gone AS (
  DELETE FROM quarantine q WHERE NOT EXISTS (
    SELECT FROM quarantine_recipients r WHERE r.spool_id = q.spool_id
      AND (r.state = 'held' OR r.owed OR r.settled_at > now() - interval '1 day'))
  RETURNING q.spool_id
)
DELETE FROM quarantine_recipients r USING gone WHERE r.spool_id = gone.spool_id
"""

_CENSUS = """
SELECT kind, count(*), coalesce(extract(epoch FROM now() - min(received_at))::double precision, 0) FROM quarantine q
WHERE EXISTS (SELECT FROM quarantine_recipients r WHERE r.spool_id = q.spool_id AND r.state = 'held') GROUP BY kind
"""


class _Overtaken(Exception):
    """Another was first: nothing of ours is kept."""


async def expire(store: Store) -> list[Ended]:
    """Give up what has been held for long enough, some at a time; empty when there is no more."""
    async with store.driver("quarantine.expire") as conn:
        return [Ended(*row) for row in await conn.fetch(_EXPIRE)]


async def ended(store: Store) -> list[Owed]:
    """Recipients for whom a message was deleted or has expired whose sender heard 250 and does not know."""
    async with store.driver("quarantine.ended") as conn:
        return [Owed(*row) for row in await conn.fetch(_ENDED)]


async def just_held(store: Store) -> list[Owed]:
    """Recipients for whom a message is held whose sender is to hear of that."""
    async with store.driver("quarantine.just_held") as conn:
        await conn.execute(_NOTHING_TO_SAY)
        return [Owed(*row) for row in await conn.fetch(_JUST_HELD)]


async def tell_sender(store: Store, told: Sequence[Owed], notice: Entry | None, due_in_s: float) -> bool:
    """Owe these recipients of one message no more, and keep the notice about them (None: nobody can be told)."""
    spool_id, ns = told[0].spool_id, [each.n for each in told]
    at_hold = told[0].state == "held"
    try:
        async with store.driver("quarantine.tell_sender") as conn, conn.transaction():
            if at_hold and not await conn.fetch(_PAY_NOTICE, spool_id):
                raise _Overtaken
            if not at_hold and len(await conn.fetch(_PAY, spool_id, ns)) < len(ns):
                raise _Overtaken
            if notice is not None:
                await insert_within(conn, [notice], due_in_s)
    except _Overtaken:
        return False
    return True


async def untold(store: Store, every_s: float) -> list[Untold]:
    """All that some accounts have not heard of, in order of account; none that had a digest in the last `every_s`."""
    async with store.driver("quarantine.untold") as conn:
        return [Untold(*row) for row in await conn.fetch(_UNTOLD, every_s)]


async def tell_account(store: Store, told: Sequence[Untold], digest: Entry, due_in_s: float) -> bool:
    """Keep the digest that names these. False, and nothing kept, where one of them is not held or is told already."""
    names = [each.spool_id for each in told], [each.n for each in told]
    try:
        async with store.driver("quarantine.tell_account") as conn, conn.transaction():
            if len(await conn.fetch(_TELL, *names)) < len(told):
                raise _Overtaken
            await insert_within(conn, [digest], due_in_s)
    except _Overtaken:
        return False
    return True


async def forget(store: Store) -> None:
    """Remove what was settled a day ago and owes nobody a notice; its octets go with the next sweep of blobs."""
    async with store.driver("quarantine.forget") as conn:
        await conn.execute(_FORGET)


async def census(store: Store) -> list[Count]:
    """What is held now."""
    async with store.driver("quarantine.census") as conn:
        return [Count(*row) for row in await conn.fetch(_CENSUS)]
