"""Held mail: kept with its envelope and what was found in it until somebody releases or deletes it, or it expires.

Every change of a recipient's state is one statement that asks for the state before, so of two who release, delete or
expire at once one does it and the other finds it done. A release puts the message into the spool in the same commit.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.core.ids import AccountId, BlobId, SpoolId
from services.core.store.engine import Store
from services.core.store.spool import Entry, Recipient, insert_within

REFUSE, ACCEPT = "refuse", "accept"


class NoSuchMessage(Exception):
    """Nothing of that id is in quarantine. The text is the id."""


class Policy(NamedTuple):
    """What a domain does about mail that is held for its people."""

    on_held: str = REFUSE  # what the sender hears: 550 "held for review" or 250
    notify_sender: bool = False  # one who heard 250 is told at once, and not only at the end
    digest: bool = True  # the recipients are told by mail


class Held(NamedTuple):
    """One message as a door holds it. `entry.prefix` is without the verdict's `headers`, `entry.size` with them."""

    entry: Entry
    headers: bytes
    accepted: bool
    notice_due: bool
    kind: str
    reason: str
    score: float
    findings: Sequence[dict[str, Any]]
    from_text: str
    subject: str
    message_id: str
    secret: bytes


class Addressee(NamedTuple):
    """One recipient of a held message. `state`: held | released | deleted | expired."""

    n: int
    address: str
    account_id: AccountId | None
    state: str
    told_at: datetime | None
    settled_at: datetime | None


class Shown(NamedTuple):
    """A held message as people look at it."""

    spool_id: SpoolId
    blob_id: BlobId
    headers: bytes
    prefix: bytes
    size: int
    sender: str
    door: str
    client: str
    accepted: bool
    kind: str
    reason: str
    score: float
    findings: list[dict[str, Any]]
    from_text: str
    subject: str
    message_id: str
    secret: bytes
    traceparent: str
    received_at: datetime
    expires_at: datetime
    recipients: tuple[Addressee, ...]

    @property
    def state(self) -> str:
        """held while it is for one of its recipients; else what became of it; elsewhere: none of them is shown."""
        if not self.recipients:
            return "elsewhere"
        states = {each.state for each in self.recipients}
        return next((state for state in ("held", "released", "deleted") if state in states), "expired")


# Driver call: one statement and one commit keep the message and everything known of it.
_HOLD = """
WITH message AS (
  INSERT INTO quarantine (spool_id, blob_id, prefix, size, sender, sender_account_id, door, client, ret, envid,
    smtputf8, requiretls, traceparent, headers, accepted, notice_due, kind, reason, score, findings, from_text, subject,
    message_id, secret, expires_at)
  VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20::jsonb, $21, $22,
    $23, $24, now() + make_interval(days => $25))
)
INSERT INTO quarantine_recipients (spool_id, owed, n, address, account_id, notify, orcpt, forwarded_by)
SELECT $1, $15, r.* FROM unnest($26::integer[], $27::text[], $28::bigint[], $29::text[], $30::text[], $31::text[]) AS r
"""

_POLICIES = "SELECT domain, on_held, notify_sender, digest FROM domains WHERE domain = ANY($1::text[])"
_SET_POLICY = text("""
UPDATE domains SET on_held = coalesce(:on_held, on_held), notify_sender = coalesce(:notify_sender, notify_sender),
  digest = coalesce(:digest, digest)
WHERE domain = :domain RETURNING on_held, notify_sender, digest
""")

# Of the message only what people of these domains ($2) may be told, all of it for NULL: that it is there if one of them
# sent it or is to have it, and who among them.
_THEIRS = "($2::text[] IS NULL OR split_part(lower(r.address), '@', -1) = ANY($2))"
_SENT = "(split_part(lower(q.sender), '@', -1) = ANY($2)) IS TRUE"
_SHOWN = f"""
SELECT q.spool_id, q.blob_id, q.headers, q.prefix, q.size, q.sender, q.door, q.client, q.accepted, q.kind, q.reason,
  q.score, q.findings, q.from_text, q.subject, q.message_id, q.secret, q.traceparent, q.received_at, q.expires_at,
  (SELECT array_agg(ROW(r.n, r.address, r.account_id, r.state, r.told_at, r.settled_at) ORDER BY r.n)
   FROM quarantine_recipients r WHERE r.spool_id = q.spool_id AND {_THEIRS})
FROM quarantine q
"""  # noqa: S608 - constant
_GET = (
    _SHOWN
    + f"""
WHERE q.spool_id = $1 AND ({_SENT} OR EXISTS (
  SELECT FROM quarantine_recipients r WHERE r.spool_id = q.spool_id AND {_THEIRS}))
"""
)
# Domains and addresses are compared at the end of the whole address, so neither can be mistaken for a pattern.
_FIND = (
    _SHOWN
    + f"""
WHERE ($1 = '' OR q.spool_id < $1) AND q.received_at < now() - make_interval(secs => $3)
  AND ($4 = '' OR lower(q.sender) = $4 OR right(lower(q.sender), length($4) + 1) = '@' || $4)
  AND EXISTS (SELECT FROM quarantine_recipients r WHERE r.spool_id = q.spool_id
    AND (r.state = 'held' OR $5)
    AND ({_THEIRS} AND ($6 = '' OR lower(r.address) = $6)
        AND ($7 = '' OR right(lower(r.address), length($7) + 1) = '@' || $7)
      OR {_SENT} AND $6 = '' AND $7 = ''))
ORDER BY q.spool_id DESC LIMIT $8
"""
)

# In order, so that two who settle several recipients of a message at once do not deadlock.
_LOCKED = """
WITH taken AS (
  SELECT r.spool_id, r.n FROM quarantine_recipients r
  WHERE r.spool_id = $1 AND r.state = 'held' AND ($2::integer[] IS NULL OR r.n = ANY($2)) ORDER BY r.n FOR UPDATE
)
"""
_RELEASE = (
    _LOCKED
    + """
UPDATE quarantine_recipients r SET state = 'released', settled_at = now(), owed = false
FROM taken t JOIN quarantine q USING (spool_id) WHERE r.spool_id = t.spool_id AND r.n = t.n
RETURNING q.blob_id, q.headers || q.prefix AS prefix, q.size, q.sender, q.sender_account_id, q.client, q.ret, q.envid,
  q.smtputf8, q.requiretls, q.traceparent, q.message_id, r.address, r.account_id,
  CASE WHEN q.accepted THEN r.notify ELSE 'NEVER' END, r.orcpt, r.forwarded_by
"""
)
_OF_MESSAGE = 12  # columns before those of the recipient
_DELETE = (
    _LOCKED
    + """
UPDATE quarantine_recipients r SET state = 'deleted', settled_at = now()
FROM taken t WHERE r.spool_id = t.spool_id AND r.n = t.n RETURNING r.address
"""
)

_FORGET_ACCOUNT = text("""
WITH taken AS (
  SELECT spool_id, n FROM quarantine_recipients WHERE account_id = :account_id AND state = 'held'
  ORDER BY spool_id, n FOR UPDATE
)
UPDATE quarantine_recipients r SET state = 'deleted', settled_at = now()
FROM taken t WHERE r.spool_id = t.spool_id AND r.n = t.n
""")


async def hold(store: Store, held: Held, keep_days: int) -> None:
    """Commit the message, synchronously; from the return on it is ours to release or to tell of."""
    e = held.entry
    row = (e.spool_id, e.blob_id, e.prefix, e.size, e.sender, e.sender_account_id, e.door, e.client, e.ret, e.envid)
    facts = (held.headers, held.accepted, held.notice_due, held.kind, held.reason, held.score)
    words = (json.dumps(list(held.findings)), held.from_text, held.subject, held.message_id, held.secret, keep_days)
    recipients = [(n, *r) for n, r in enumerate(e.recipients)]
    columns = map(list, zip(*recipients, strict=True))
    async with store.driver("quarantine.hold") as conn:
        await conn.execute(_HOLD, *row, e.smtputf8, e.requiretls, e.traceparent, *facts, *words, *columns)


async def policies(store: Store, domains: Sequence[str]) -> dict[str, Policy]:
    """The policy of each of these domains that is ours."""
    async with store.driver("quarantine.policies") as conn:
        return {row[0]: Policy(*row[1:]) for row in await conn.fetch(_POLICIES, domains)}


async def set_policy(
    conn: AsyncConnection,
    domain: str,
    *,
    on_held: str | None = None,
    notify_sender: bool | None = None,
    digest: bool | None = None,
) -> Policy | None:
    """Change what is not None; the policy as it is then, None where the domain is not ours."""
    asked = {"domain": domain, "on_held": on_held, "notify_sender": notify_sender, "digest": digest}
    row = (await conn.execute(_SET_POLICY, asked)).one_or_none()
    return None if row is None else Policy(*row)


async def get(store: Store, spool_id: str, within: Sequence[str] | None = None) -> Shown:
    """One message, as people of the domains `within` may be told of it (None: whole). Raises `NoSuchMessage`."""
    async with store.driver("quarantine.get") as conn:
        row = await conn.fetchrow(_GET, spool_id, within)
    if row is None:
        raise NoSuchMessage(spool_id)
    return _shown(row)


async def find(
    store: Store,
    *,
    domain: str = "",
    recipient: str = "",
    sender: str = "",
    age_s: float = 0,
    settled: bool = False,
    before: str = "",
    limit: int = 100,
    within: Sequence[str] | None = None,
) -> list[Shown]:
    """Held messages, the newest first: those for a domain or recipient, from a sender (address or domain), of an age.

    `settled`: also what was released, deleted or has expired and is still known. `before`: the id that ended the
    page before. `within`: as for `get`.
    """
    words = (sender.lower(), settled, recipient.lower(), domain.lower())
    async with store.driver("quarantine.find") as conn:
        return [_shown(row) for row in await conn.fetch(_FIND, before, within, age_s, *words, limit)]


class Released(NamedTuple):
    """What a release put into the spool."""

    entry: Entry
    message_id: str


async def release(
    store: Store, spool_id: str, new_id: SpoolId, mark: bytes, due_in_s: float, ns: Sequence[int] | None = None
) -> Released | None:
    """Move the message to the spool for those recipients (None: all) that it is still held for.

    None where it was held for none of them. `mark`: header lines that say so. A sender that was refused in its session
    has heard what there is to hear: nothing of the release is told to it.
    """
    async with store.driver("quarantine.release") as conn, conn.transaction():
        rows = await conn.fetch(_RELEASE, spool_id, ns)
        if not rows:
            return None
        kept = rows[0]
        entry = Entry(
            spool_id=new_id,
            blob_id=BlobId(kept["blob_id"]),
            prefix=mark + kept["prefix"],
            size=kept["size"] + len(mark),
            sender=kept["sender"],
            sender_account_id=kept["sender_account_id"],
            door="quarantine",
            client=kept["client"],
            junk=False,
            recipients=tuple(Recipient(*tuple(row)[_OF_MESSAGE:]) for row in rows),
            ret=kept["ret"],
            envid=kept["envid"],
            smtputf8=kept["smtputf8"],
            requiretls=kept["requiretls"],
            traceparent=kept["traceparent"],
        )
        await insert_within(conn, [entry], due_in_s)
    return Released(entry, kept["message_id"])


async def delete(store: Store, spool_id: str, ns: Sequence[int] | None = None) -> list[str]:
    """Give the message up for those recipients (None: all) that it is still held for; their addresses."""
    async with store.driver("quarantine.delete") as conn:
        return [row[0] for row in await conn.fetch(_DELETE, spool_id, ns)]


async def forget_account(conn: AsyncConnection, account_id: AccountId) -> None:
    """Give up what is held for an account that goes away; senders who heard 250 are told as ever."""
    await conn.execute(_FORGET_ACCOUNT, {"account_id": account_id})


def _shown(row: Any) -> Shown:
    findings = json.loads(row["findings"])
    return Shown._make([*row[:12], findings, *row[13:20], tuple(Addressee(*each) for each in row[20] or ())])
