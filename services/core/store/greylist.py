"""First tries of strangers, by a hash of network, sender and recipient. A crash forgets them: one more try."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_TRIED = text("""
INSERT INTO greylist AS g (key) VALUES (:key)
ON CONFLICT (key) DO UPDATE SET last_at = now(), first_at = least(g.first_at, now()),
  passed = g.passed OR now() - g.first_at >= make_interval(secs => cast(:wait_s AS double precision))
RETURNING CASE WHEN passed THEN 0.0
  ELSE greatest(0.0, cast(:wait_s AS double precision) - extract(epoch FROM now() - first_at)) END
""")

# RFC 6647 4.4: who has not come again within two days is no mail server, or one that gave up.
_TIDY = text("""
DELETE FROM greylist
WHERE last_at < now() - interval '35 days' OR (NOT passed AND first_at < now() - interval '2 days')
""")


async def tried(conn: AsyncConnection, key: bytes, wait_s: float) -> float:
    """Count a try; the seconds that are left until one is taken, 0 for one that may pass."""
    return float((await conn.execute(_TRIED, {"key": key, "wait_s": wait_s})).scalar_one())


async def tidy(conn: AsyncConnection) -> int:
    """Forget what is of no use any more; returns how many rows."""
    return (await conn.execute(_TIDY)).rowcount
