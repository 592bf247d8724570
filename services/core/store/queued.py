"""The queue of mail to other domains, as operators see and change it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.core.address import domain as canonical
from services.core.ids import BlobId, SpoolId


class Selection(NamedTuple):
    """Which recipients are meant: those that all of these fit. Nothing said: everybody in the queue."""

    spool_ids: tuple[str, ...] = ()
    domain: str = ""  # the recipient's
    sender: str | None = None  # an address, "@domain", or "" for the null reverse-path; None: anybody
    older_than_s: float = 0


def meant(spool_ids: Sequence[str] = (), domain: str = "", sender: str = "", older_than_s: float = 0) -> Selection:
    """A selection in the words of a person, for whom empty is anybody and `<>` the null reverse-path.

    Raises `BadAddress` for a domain that is none.
    """
    author = None if not sender else sender.strip("<>")
    return Selection(tuple(spool_ids), canonical(domain) if domain else "", author, older_than_s)


class Queued(NamedTuple):
    """One recipient in the queue."""

    spool_id: SpoolId
    n: int
    address: str
    sender: str
    size: int
    state: str  # fresh | waiting | due | sending | held
    attempts: int
    received_at: datetime
    due_at: datetime
    last_reply: str | None
    last_host: str | None
    leased_by: str | None


class NotQueued(Exception):
    """No such message is in the queue."""


class Touched(NamedTuple):
    """One recipient that was changed, with what its trace needs."""

    spool_id: SpoolId
    address: str
    sender: str
    traceparent: str


_LEASED = "(r.leased_by IS NOT NULL)"
_SELECTED = """
r.account_id IS NULL AND (CAST(:ids AS text[]) IS NULL OR r.spool_id = ANY(CAST(:ids AS text[])))
  AND (CAST(:domain AS text) IS NULL OR r.domain = :domain)
  AND (CAST(:sender AS text) IS NULL OR lower(s.sender) = :sender)
  AND (CAST(:sender_domain AS text) IS NULL OR split_part(s.sender, '@', -1) = :sender_domain)
  AND s.received_at <= now() - make_interval(secs => :older_than_s)
"""
_STATE = """
CASE WHEN r.held THEN 'held' WHEN {leased} THEN 'sending' WHEN r.attempts = 0 THEN 'fresh'
  WHEN r.due_at <= now() THEN 'due' ELSE 'waiting' END
"""

_LIST = """
SELECT r.spool_id, r.n, r.address, s.sender, s.size, {state}, r.attempts, s.received_at, r.due_at, r.last_reply,
  r.last_host, CASE WHEN {leased} THEN r.leased_by END
FROM spool_recipients r JOIN spool s USING (spool_id)
WHERE {selected} AND (r.spool_id, r.n) > (:after, :after_n) ORDER BY r.spool_id, r.n LIMIT :limit
"""
_COUNT = "SELECT count(*) FROM spool_recipients r JOIN spool s USING (spool_id) WHERE {selected}"

# In the order of the key, as a relay's settlement locks: of two that change the same rows none waits for the other.
_CHANGE = """
WITH meant AS MATERIALIZED (
  SELECT r.spool_id, r.n FROM spool_recipients r JOIN spool s USING (spool_id)
  WHERE {selected} AND {which} ORDER BY r.spool_id, r.n FOR UPDATE OF r
), touched AS (
  {change} WHERE r.spool_id = meant.spool_id AND r.n = meant.n RETURNING r.spool_id, r.n, r.address
)
"""
_TOUCHED = "SELECT t.spool_id, t.address, s.sender, s.traceparent FROM touched t JOIN spool s USING (spool_id)"
_EMPTIED = """
, emptied AS (
  DELETE FROM spool s WHERE s.spool_id IN (SELECT spool_id FROM touched) AND NOT EXISTS (
    SELECT FROM spool_recipients r WHERE r.spool_id = s.spool_id
      AND (r.spool_id, r.n) NOT IN (SELECT spool_id, n FROM touched))
)
"""


def _statement(change: str, which: str, rest: str = "") -> Any:
    whole = _CHANGE.format(selected=_SELECTED, which=which, change=change) + rest + _TOUCHED
    return text(whole)


_LISTED = text(_LIST.format(state=_STATE.format(leased=_LEASED), leased=_LEASED, selected=_SELECTED))
_COUNTED = text(_COUNT.format(selected=_SELECTED))
_ORIGIN = text("SELECT prefix, blob_id FROM spool WHERE spool_id = :spool_id")
_RETRY = _statement(
    "UPDATE spool_recipients r SET due_at = now(), leased_by = NULL FROM meant", f"NOT r.held AND NOT {_LEASED}"
)
# What is being sent is let finish; where that fails it is held from then on.
_HOLD = _statement("UPDATE spool_recipients r SET held = true FROM meant", "NOT r.held")
_FREE = "UPDATE spool_recipients r SET held = false, due_at = CASE WHEN {0} THEN r.due_at ELSE now() END FROM meant"
_RELEASE = _statement(_FREE.format(_LEASED), "r.held")
_DROP = _statement("DELETE FROM spool_recipients r USING meant", f"NOT {_LEASED}", _EMPTIED)
_DOOM = _statement(
    "UPDATE spool_recipients r SET doomed = :reason, held = false, leased_by = NULL, due_at = now() FROM meant",
    f"NOT {_LEASED}",
)


async def entries(
    conn: AsyncConnection, selection: Selection, *, limit: int, after: tuple[str, int] = ("", -1)
) -> list[Queued]:
    """A page of the queue, oldest messages first."""
    values = _values(selection) | {"limit": limit, "after": after[0], "after_n": after[1]}
    return [Queued(*row) for row in await conn.execute(_LISTED, values)]


async def count(conn: AsyncConnection, selection: Selection) -> int:
    """How many recipients are meant."""
    return int((await conn.execute(_COUNTED, _values(selection))).scalar_one())


async def origin(conn: AsyncConnection, spool_id: str) -> tuple[bytes, BlobId] | None:
    """Prefix and blob of a message in the spool."""
    row = (await conn.execute(_ORIGIN, {"spool_id": spool_id})).first()
    return None if row is None else (bytes(row[0]), BlobId(bytes(row[1])))


async def retry(conn: AsyncConnection, selection: Selection) -> list[Touched]:
    """Let them be due now; those that are held or being sent stay as they are."""
    return await _change(conn, _RETRY, selection)


async def hold(conn: AsyncConnection, selection: Selection) -> list[Touched]:
    """Let nobody attempt them until they are released."""
    return await _change(conn, _HOLD, selection)


async def release(conn: AsyncConnection, selection: Selection) -> list[Touched]:
    """Let held ones be due now."""
    return await _change(conn, _RELEASE, selection)


async def drop(conn: AsyncConnection, selection: Selection) -> list[Touched]:
    """Delete them; nobody is told. Those that are being sent stay."""
    return await _change(conn, _DROP, selection)


async def doom(conn: AsyncConnection, selection: Selection, reason: str) -> list[Touched]:
    """Let a relay give them up, which tells their senders why. Those that are being sent stay."""
    return await _change(conn, _DOOM, selection, reason=reason)


async def _change(conn: AsyncConnection, statement: Any, selection: Selection, **more: object) -> list[Touched]:
    return [Touched(*row) for row in await conn.execute(statement, _values(selection) | more)]


def _values(selection: Selection) -> dict[str, object]:
    sender = selection.sender
    of_domain = sender is not None and sender.startswith("@")
    return {
        "ids": list(selection.spool_ids) or None,
        "domain": selection.domain or None,
        "sender": None if sender is None or of_domain else sender.lower(),
        "sender_domain": sender[1:].lower() if sender is not None and of_domain else None,
        "older_than_s": selection.older_than_s,
    }
