"""How the spool and the replicas stand, for gauges: what waits, how long, and how often it was tried."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

MANY = 4  # attempts: by then it is no passing fault

_WAITING = text("""
SELECT r.account_id IS NULL AS remote, count(*) AS recipients,
  count(*) FILTER (WHERE r.attempts >= :many) AS failing,
  coalesce(extract(epoch FROM now() - min(s.received_at)), 0)::float8 AS oldest_s,
  greatest(0, coalesce(extract(epoch FROM now() - min(r.due_at) FILTER (WHERE NOT r.held)), 0))::float8 AS overdue_s
FROM spool_recipients r JOIN spool s USING (spool_id) GROUP BY 1
""")

_BUSIEST = text("""
SELECT count(*) FROM spool s JOIN spool_recipients r USING (spool_id)
WHERE s.sender_account_id IS NOT NULL AND r.account_id IS NULL
GROUP BY s.sender_account_id ORDER BY 1 DESC LIMIT 1
""")

# Of others' connections a role that may not read statistics sees no lag: then there is none to tell.
_LAG = text("SELECT extract(epoch FROM max(replay_lag))::float8 FROM pg_stat_replication")


class Waiting(NamedTuple):
    """Recipients of the spool that are not done, of one kind."""

    remote: bool
    recipients: int
    failing: int
    oldest_s: float
    overdue_s: float


async def waiting(conn: AsyncConnection) -> list[Waiting]:
    """What waits for a mailbox here and what waits to go out; no row where nothing does."""
    return [Waiting(*row) for row in await conn.execute(_WAITING, {"many": MANY})]


async def busiest_sender(conn: AsyncConnection) -> int:
    """How many recipients elsewhere wait for the mail of the account that has most of them."""
    return int((await conn.execute(_BUSIEST)).scalar() or 0)


async def replication_lag_s(conn: AsyncConnection) -> float | None:
    """How far the slowest replica is behind; None without one, or without the right to know."""
    lag = (await conn.execute(_LAG)).scalar()
    return None if lag is None else float(lag)
