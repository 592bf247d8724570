"""Failed logins, counted where every process sees them; a count fades to nothing over the window."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

# Rounded, not cut: with failures a second apart a count cut to whole numbers would never rise. Never more than they
# were: while a clock that was set back catches up, they neither fade nor grow.
_FADED = """
round(f.failures * least(1, greatest(0,
  1 - extract(epoch FROM now() - f.last_at) / cast(:window_s AS double precision))))
"""

_COUNTS = text(f"SELECT key, {_FADED} FROM login_failures f WHERE key = ANY(:keys)")  # noqa: S608 - constant
# Keys in order, so that two processes that count the same ones do not deadlock.
_COUNT = text(f"""
INSERT INTO login_failures AS f (key, failures) SELECT unnest(cast(:keys AS text[])), 1 ORDER BY 1
ON CONFLICT (key) DO UPDATE SET last_at = now(), failures = {_FADED} + 1
""")
_TRUST = text("""
INSERT INTO login_failures (key, failures) VALUES (:key, 0)
ON CONFLICT (key) DO UPDATE SET failures = 0, last_at = now()
WHERE login_failures.failures > 0 OR login_failures.last_at < now() - interval '1 day'
""")
_SWEEP = text("""
DELETE FROM login_failures
WHERE last_at < now() - make_interval(secs => CASE WHEN key LIKE 'known:%' THEN :trust_s ELSE :window_s END)
""")


async def counts(conn: AsyncConnection, keys: Sequence[str], window_s: float) -> dict[str, int]:
    """What is left of each key's failures; keys that were never counted are absent."""
    rows = await conn.execute(_COUNTS, {"keys": list(keys), "window_s": window_s})
    return {row[0]: int(row[1]) for row in rows}


async def count(conn: AsyncConnection, keys: Sequence[str], window_s: float) -> None:
    """One more failure for each of the keys."""
    await conn.execute(_COUNT, {"keys": sorted(keys), "window_s": window_s})


async def trust(conn: AsyncConnection, known: str) -> None:
    """A login succeeded: remember `known`, without failures."""
    await conn.execute(_TRUST, {"key": known})


async def sweep(conn: AsyncConnection, window_s: float, trust_s: float) -> int:
    """Remove what has faded, and trust ("known:...") unused for `trust_s`; returns how many rows."""
    return (await conn.execute(_SWEEP, {"window_s": window_s, "trust_s": trust_s})).rowcount
