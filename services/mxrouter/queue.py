"""Recipients of other domains, in the store: found, leased to one pod, settled.

Invariants
- `attempts` counts leases too: who comes back with an older number has been overtaken and settles nothing but success.
- A lease is `leased_by`, kept alive by a new `due_at` now and again. It ends when nobody has renewed it for its whole
  length by the clock that measures durations: a wall clock that jumps neither ends one nor makes one last for days.
- A letter's recipients of one domain are leased together, a hundred at a time: whoever holds the first of them has all.
- No statement here waits for a row while it holds another one, except a settlement for its own rows.

A recipient is *fresh* until its first attempt, then in *retry*. Each kind has partial indexes of its own, so any number
of rows that wait for dead hosts costs those of today nothing. Driver calls: every message that leaves passes here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import Enum
from itertools import groupby
from typing import Any, NamedTuple

from services.core.ids import AccountId, BlobId, SpoolId
from services.core.store.engine import Store
from services.core.store.spool import Entry, finish, finish_within, forget_empty, insert_within, those_of


class Kind(Enum):
    """Two lines at the counter: who was never served does not wait behind those who were and come again."""

    FRESH = "fresh"
    RETRY = "retry"


class Waiting(NamedTuple):
    """One recipient, leased."""

    n: int
    address: str
    notify: str | None
    orcpt: str | None
    attempts: int  # the lease's number, this attempt included
    notice_at: datetime
    doomed: str | None
    forwarded_by: str | None = None


class Claim(NamedTuple):
    """One message for its recipients of one domain, leased."""

    spool_id: SpoolId
    domain: str
    blob_id: BlobId
    prefix: bytes
    sender: str
    sender_account_id: AccountId | None
    door: str
    ret: str | None
    envid: str | None
    smtputf8: bool
    requiretls: bool
    received_at: datetime
    claimed_at: datetime  # by the store's clock, as received_at: a pod's own may be another
    traceparent: str
    size: int  # octets of prefix + blob
    recipients: tuple[Waiting, ...]
    content: bytes | None = None  # of the blob, where it is small enough to come along


class Postponed(NamedTuple):
    """What becomes of a recipient that stays."""

    n: int
    attempts: int
    wait_s: float
    notice_at: datetime
    reply: str
    host: str


class PutOff(NamedTuple):
    """How many were made to wait, whether there may be more, and whether some are left whose senders must be told."""

    recipients: int
    more: bool
    told: bool


class Lease(NamedTuple):
    """One recipient in some pod's hand, as of its last renewal."""

    spool_id: SpoolId
    n: int
    attempts: int
    due_at: datetime


class Depth(NamedTuple):
    """How many recipients are in a state, and for how long the oldest of their messages has been here."""

    state: str  # fresh | waiting | due | sending | held
    recipients: int
    oldest_s: float


# What can be leased, of the row that stands under the alias {0}.
_FRESH = "{0}.account_id IS NULL AND NOT {0}.held AND {0}.attempts = 0"
_RETRY = (
    "{0}.account_id IS NULL AND NOT {0}.held AND {0}.attempts > 0 AND {0}.due_at <= now() AND {0}.leased_by IS NULL"
)
_KINDS = {Kind.FRESH: _FRESH, Kind.RETRY: _RETRY}


def _by_id(kind: Kind, alias: str) -> str:
    return f"({_KINDS[kind].format(alias)}) IS TRUE"


_OFFERED = """
SELECT DISTINCT r.spool_id, r.domain FROM spool_recipients r
WHERE r.spool_id = ANY($1::text[]) AND {fresh}
""".format(fresh=_by_id(Kind.FRESH, "r"))

_DUE = """
SELECT r.domain FROM spool_recipients r
WHERE {due} AND r.domain <> ALL($1::text[]) AND ($2::text[] IS NULL OR r.domain = ANY($2::text[]))
GROUP BY r.domain ORDER BY min(r.due_at) LIMIT $3
"""
_DUE_OF = {kind: _DUE.format(due=due.format("r")) for kind, due in _KINDS.items()}

# The head of a letter is its first recipient that can be leased: of two claimers, one has it and the other passes on.
# All else of a letter is looked up by its id, in words that leave the planner no choice (core/store/spool says why).
_CLAIM = """
WITH heads AS (
  SELECT r.spool_id, r.domain FROM spool_recipients r
  WHERE {which} AND r.n = (
    SELECT e.n FROM spool_recipients e
    WHERE e.spool_id = r.spool_id AND e.domain IS NOT DISTINCT FROM r.domain AND {due_e} ORDER BY e.n LIMIT 1)
  {most} FOR UPDATE SKIP LOCKED
), free AS (
  SELECT h.spool_id, r.n FROM heads h, LATERAL (
    SELECT r.n FROM spool_recipients r
    WHERE r.spool_id = h.spool_id AND r.domain IS NOT DISTINCT FROM h.domain AND {due_r}
    ORDER BY r.n LIMIT $5 FOR UPDATE SKIP LOCKED) r
), taken AS (
  UPDATE spool_recipients r
  SET attempts = r.attempts + 1, leased_by = $3, due_at = now() + make_interval(secs => $4)
  WHERE {those_free}
  RETURNING r.spool_id, r.domain, r.n, r.address, r.notify, r.orcpt, r.attempts, r.notice_at, r.doomed, r.forwarded_by
)
SELECT s.spool_id, t.domain, s.blob_id, s.prefix, s.sender, s.sender_account_id, s.door, s.ret, s.envid, s.smtputf8,
  s.requiretls, s.received_at, now(), s.traceparent, s.size,
  t.n, t.address, t.notify, t.orcpt, t.attempts, t.notice_at, t.doomed, t.forwarded_by,
  CASE WHEN s.size <= $6 AND row_number() OVER (PARTITION BY s.spool_id, t.domain ORDER BY t.n) = 1 THEN b.content END
FROM taken t JOIN spool s ON s.spool_id = t.spool_id AND s.spool_id = ANY(ARRAY(SELECT spool_id FROM free))
  LEFT JOIN blobs b USING (blob_id)
ORDER BY s.spool_id, t.domain, t.n
"""


def _claiming(kind: Kind, which: str, most: str = "") -> str:
    due_r, due_e, those_free = _by_id(kind, "r"), _by_id(kind, "e"), those_of("free")
    return _CLAIM.format(which=which, most=most, due_r=due_r, due_e=due_e, those_free=those_free)


_CLAIM_OF = {
    kind: _claiming(kind, f"r.domain = $1 AND {due.format('r')}", "ORDER BY r.due_at LIMIT $2")
    for kind, due in _KINDS.items()
}
_THESE = "r.spool_id = ANY($1::text[]) AND ((r.spool_id, r.domain) IN (SELECT * FROM unnest($1, $2::text[]))) IS TRUE"
_CLAIM_THESE = _claiming(Kind.FRESH, f"{_THESE} AND {_by_id(Kind.FRESH, 'r')}")
_OF_LETTER = 15
# RFC 5321 4.5.3.1.8: a server takes at least a hundred. The others of the letter follow when these are settled, so what
# a killed pod leaves behind is no more than that.
RECIPIENTS_AT_ONCE = 100
# Octets of a message that comes with its claim, which saves a statement; more would be memory that nobody has allowed.
_ALONG = 8 * 1024

_RENEW = """
UPDATE spool_recipients r SET due_at = now() + make_interval(secs => $5)
FROM unnest($1::text[], $2::integer[], $3::integer[]) AS l(spool_id, n, attempts)
WHERE r.spool_id = ANY($1) AND r.spool_id = l.spool_id AND r.n = l.n AND r.attempts = l.attempts AND r.leased_by = $4
"""

_LEASES = "SELECT spool_id, n, attempts, due_at FROM spool_recipients WHERE leased_by IS NOT NULL"

# Those that are still what they were when they were looked at: a renewed one is another.
_FREE = """
WITH dead AS (
  SELECT r.spool_id, r.n FROM spool_recipients r
    JOIN unnest($1::text[], $2::integer[], $3::integer[], $4::timestamptz[]) AS l(spool_id, n, attempts, due_at)
    ON r.spool_id = l.spool_id AND r.n = l.n AND r.attempts = l.attempts AND r.due_at = l.due_at
  WHERE r.leased_by IS NOT NULL FOR UPDATE OF r SKIP LOCKED
)
UPDATE spool_recipients r SET leased_by = NULL, due_at = now() WHERE {those}
""".format(those=those_of("dead"))  # noqa: S608 - constant

# Due later than any schedule says: the clock was ahead when that was written. Spread, for it may be everything.
_HASTEN = """
WITH stranded AS (
  SELECT r.spool_id, r.n FROM spool_recipients r
  WHERE r.account_id IS NULL AND NOT r.held AND r.attempts > 0 AND r.leased_by IS NULL
    AND r.due_at > now() + make_interval(secs => $1) LIMIT $3 FOR UPDATE SKIP LOCKED
)
UPDATE spool_recipients r SET due_at = now() + make_interval(secs => $2 * random()) WHERE {those}
""".format(those=those_of("stranded"))  # noqa: S608 - constant

# Not attempted after all: as if it had never been leased.
_GIVE_BACK = """
UPDATE spool_recipients r SET attempts = r.attempts - 1, due_at = now(), leased_by = NULL
FROM unnest($1::text[], $2::integer[], $3::integer[]) AS l(spool_id, n, attempts)
WHERE r.spool_id = ANY($1) AND r.spool_id = l.spool_id AND r.n = l.n AND r.attempts = l.attempts AND r.leased_by = $4
"""

_STILL_OURS = """
SELECT r.n FROM spool_recipients r, unnest($1::text[], $2::integer[], $3::integer[]) AS l(spool_id, n, attempts)
WHERE r.spool_id = ANY($1) AND r.spool_id = l.spool_id AND r.n = l.n AND r.attempts = l.attempts AND r.leased_by = $4
ORDER BY r.n FOR UPDATE OF r
"""

_POSTPONE = """
UPDATE spool_recipients r SET due_at = now() + make_interval(secs => l.wait_s), notice_at = l.notice_at,
  last_reply = l.reply, last_host = l.host, leased_by = NULL
FROM unnest($3::integer[], $4::integer[], $5::float8[], $6::timestamptz[], $7::text[], $8::text[])
  AS l(n, attempts, wait_s, notice_at, reply, host)
WHERE r.spool_id = $1 AND r.leased_by = $2 AND r.n = l.n AND r.attempts = l.attempts RETURNING r.n
"""

# Without a look at each message: those whose sender must be told something are left to be claimed. Who would come due
# while nobody can be reached there goes with those who are due, or each of them would cost a statement of its own.
_PUT_OFF = """
WITH off AS (
  SELECT r.spool_id, r.n FROM spool_recipients r WHERE r.domain = $1 AND r.doomed IS NULL AND {off}
  LIMIT $6 FOR UPDATE SKIP LOCKED
), moved AS (
  UPDATE spool_recipients r SET attempts = r.attempts + (r.due_at <= now() OR r.attempts = 0)::int, leased_by = NULL,
    last_reply = $4, last_host = $5, due_at = now() + make_interval(secs => $2 * (1 + random() / 2)),
    notice_at = CASE WHEN r.attempts = 0 THEN make_interval(secs => $3) + (
      SELECT s.received_at FROM spool s WHERE s.spool_id = r.spool_id) ELSE r.notice_at END
  WHERE {those_off} RETURNING 1
)
SELECT (SELECT count(*) FROM moved), EXISTS (
  SELECT FROM spool_recipients r WHERE r.domain = $1 AND {due} AND (r.doomed IS NOT NULL OR {told}))
"""
_SOON = """
r.account_id IS NULL AND NOT r.held AND r.attempts > 0 AND r.due_at <= now() + make_interval(secs => $2)
  AND r.leased_by IS NULL AND r.notice_at > now()
"""
_PUT_OFF_OF = {
    kind: _PUT_OFF.format(off=off, due=_KINDS[kind].format("r"), told=told, those_off=those_of("off"))
    for kind, off, told in (
        (Kind.FRESH, _FRESH.format("r"), "false"),
        (Kind.RETRY, _SOON, "r.notice_at <= now()"),
    )
}
_AT_ONCE = 20_000  # so that nothing waits long for it

# Spool ids sort by time, so the smallest one is the oldest.
_DEPTH = """
SELECT c.state, c.recipients, coalesce(extract(epoch FROM now() - s.received_at), 0)::float8 FROM (
  SELECT CASE WHEN held THEN 'held' WHEN leased_by IS NOT NULL THEN 'sending'
    WHEN attempts = 0 THEN 'fresh' WHEN due_at <= now() THEN 'due' ELSE 'waiting' END AS state,
    count(*) AS recipients, min(spool_id) AS oldest
  FROM spool_recipients WHERE account_id IS NULL GROUP BY 1
) c LEFT JOIN spool s ON s.spool_id = c.oldest
"""


async def offered(store: Store, spool_ids: Sequence[SpoolId]) -> list[tuple[SpoolId, str]]:
    """The letters that these entries are for fresh recipients: each entry with each domain."""
    async with store.driver("relay.offered") as conn:
        return [(SpoolId(spool_id), domain) for spool_id, domain in await conn.fetch(_OFFERED, spool_ids)]


async def due(
    store: Store, kind: Kind, limit: int, *, but: Sequence[str] = (), of: Sequence[str] | None = None
) -> list[str]:
    """Domains that have due recipients, who waits longest first; none of `but`, only some of `of` where it is given."""
    async with store.driver("relay.due") as conn:
        return [domain for (domain,) in await conn.fetch(_DUE_OF[kind], but, of, limit)]


async def claim(store: Store, pod: str, domain: str, kind: Kind, letters: int, lease_s: float) -> list[Claim]:
    """Lease up to so many letters for that domain to `pod`; what others have in hand is passed over."""
    async with store.driver("relay.claim") as conn:
        return _claims(await conn.fetch(_CLAIM_OF[kind], domain, letters, pod, lease_s, RECIPIENTS_AT_ONCE, _ALONG))


async def claim_these(store: Store, pod: str, letters: Sequence[tuple[SpoolId, str]], lease_s: float) -> list[Claim]:
    """Lease those fresh letters, each an entry and a domain, that nobody has in hand."""
    spool_ids, domains = [spool_id for spool_id, _ in letters], [domain for _, domain in letters]
    async with store.driver("relay.claim_these") as conn:
        return _claims(await conn.fetch(_CLAIM_THESE, spool_ids, domains, pod, lease_s, RECIPIENTS_AT_ONCE, _ALONG))


def _claims(rows: Iterable[Iterable[Any]]) -> list[Claim]:
    claims = []
    for letter, several in groupby(map(tuple, rows), key=lambda row: row[:_OF_LETTER]):
        recipients = list(several)
        waiting = tuple(Waiting._make(row[_OF_LETTER:-1]) for row in recipients)
        claims.append(Claim._make((*letter, waiting, recipients[0][-1])))
    return claims


async def renew(store: Store, pod: str, held: Sequence[tuple[SpoolId, int, int]], lease_s: float) -> None:
    """Lengthen the leases of `held`: spool id, n and attempts."""
    async with store.driver("relay.renew") as conn:
        await conn.execute(_RENEW, *_columns(held), pod, lease_s)


async def leases(store: Store) -> list[Lease]:
    """Every lease there is, whoever holds it."""
    async with store.driver("relay.leases") as conn:
        return [Lease(*row) for row in await conn.fetch(_LEASES)]


async def free(store: Store, dead: Sequence[Lease]) -> int:
    """End those leases that are still as given; their recipients are due at once. How many they were."""
    columns = map(list, zip(*dead, strict=True))
    async with store.driver("relay.free") as conn:
        return _count(await conn.execute(_FREE, *columns))


async def hasten(store: Store, longest_s: float, within_s: float) -> int:
    """Let what is due later than `longest_s` from now be due `within_s`. How many they were."""
    async with store.driver("relay.hasten") as conn:
        return _count(await conn.execute(_HASTEN, longest_s, within_s, _AT_ONCE))


async def give_back(store: Store, pod: str, held: Sequence[tuple[SpoolId, int, int]]) -> None:
    """End leases of what was not attempted; it is due at once."""
    async with store.driver("relay.give_back") as conn:
        await conn.execute(_GIVE_BACK, *_columns(held), pod)


class _Overtaken(Exception):
    """The lease has run out and another has taken it up."""


async def settle(
    store: Store,
    pod: str,
    spool_id: SpoolId,
    *,
    sent: Sequence[Waiting],
    failed: Sequence[Waiting],
    later: Sequence[Postponed],
    notices: Sequence[Entry],
    due_in_s: float,
) -> bool:
    """Write down how one attempt ended, with the notices about it, in one commit.

    False when another has taken up the lease meanwhile: then only what was sent is taken out, which nobody may send
    again, and the rest is the other's to settle.
    """
    try:
        async with store.driver("relay.settle") as conn:
            async with conn.transaction():
                if failed:
                    held = _columns([(spool_id, one.n, one.attempts) for one in failed])
                    if len(await conn.fetch(_STILL_OURS, *held, pod)) < len(failed):
                        raise _Overtaken
                if later:
                    columns = map(list, zip(*later, strict=True))
                    if len(await conn.fetch(_POSTPONE, spool_id, pod, *columns)) < len(later):
                        raise _Overtaken
                finished = await finish_within(conn, [(spool_id, one.n) for one in (*sent, *failed)])
                if notices:
                    await insert_within(conn, notices, due_in_s)
            await forget_empty(conn, finished)
    except _Overtaken:
        if sent:
            await finish(store, [(spool_id, one.n) for one in sent], lazily=False)
        return False
    return True


async def put_off(
    store: Store, domain: str, kind: Kind, *, wait_s: float, warn_after_s: float, reply: str, host: str
) -> PutOff:
    """Let everything for a domain wait that would be tried within `wait_s`: nobody can be reached there.

    One statement, whatever their number, that spreads them over half as long again.
    """
    async with store.driver("relay.put_off") as conn:
        ((count, told),) = await conn.fetch(_PUT_OFF_OF[kind], domain, wait_s, warn_after_s, reply, host, _AT_ONCE)
    return PutOff(count, count == _AT_ONCE, told)


async def depth(store: Store) -> list[Depth]:
    """The queue in figures."""
    async with store.driver("relay.depth") as conn:
        return [Depth(*row) for row in await conn.fetch(_DEPTH)]


def _count(done: str) -> int:
    return int(done.rpartition(" ")[2])


def _columns(held: Sequence[tuple[SpoolId, int, int]]) -> tuple[list[SpoolId], list[int], list[int]]:
    return [h[0] for h in held], [h[1] for h in held], [h[2] for h in held]
