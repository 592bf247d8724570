"""How TLS with other domains went, by day, and which of them have been told (RFC 8460)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.core.store.engine import Store
from services.core.store.spool import Entry, insert_within


class TlsResult(NamedTuple):
    """What is counted. `policy`: tlsa | sts | no-policy-found; `result`: successful, or a type of RFC 8460 4.3."""

    domain: str
    policy: str
    host: str
    result: str


# In order, so that two processes that count the same ones do not deadlock.
_ADD = text("""
INSERT INTO tls_results AS t (domain, day, policy, host, result, sessions)
SELECT domain, :day, policy, host, result, sessions
FROM unnest(cast(:domains AS text[]), cast(:policies AS text[]), cast(:hosts AS text[]), cast(:results AS text[]),
            cast(:sessions AS bigint[])) AS n (domain, policy, host, result, sessions)
ORDER BY domain, policy, host, result
ON CONFLICT (domain, day, policy, host, result) DO UPDATE SET sessions = t.sessions + excluded.sessions
""")
_OF_DAY = text("SELECT domain, policy, host, result, sessions FROM tls_results WHERE day = :day")
_SWEEP = text("DELETE FROM tls_results WHERE day < :before")
_SWEEP_REPORTS = text("DELETE FROM tls_reports WHERE day < :before")
# At random, so that pods that look at the same time find different ones.
_UNREPORTED = text("""
SELECT domain, day FROM (
  SELECT DISTINCT domain, day FROM tls_results t
  WHERE day < :before AND NOT EXISTS (SELECT FROM tls_reports r WHERE (r.domain, r.day) = (t.domain, t.day))
) AS owed ORDER BY random() LIMIT :limit
""")
_OF_DOMAIN = text(
    "SELECT domain, policy, host, result, sessions FROM tls_results WHERE domain = :domain AND day = :day"
)
_DONE = """
INSERT INTO tls_reports (domain, day, spool_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING domain
"""
_WITHDRAW = text("DELETE FROM tls_reports WHERE domain = :domain AND day = :day AND spool_id IS NULL")


async def add(conn: AsyncConnection, day: date, counts: Mapping[TlsResult, int]) -> None:
    """So many more sessions on that day."""
    rows = list(counts)
    await conn.execute(
        _ADD,
        {
            "day": day,
            "domains": [row.domain for row in rows],
            "policies": [row.policy for row in rows],
            "hosts": [row.host for row in rows],
            "results": [row.result for row in rows],
            "sessions": [counts[row] for row in rows],
        },
    )


async def of_day(conn: AsyncConnection, day: date) -> dict[TlsResult, int]:
    """What was counted on one day."""
    rows = await conn.execute(_OF_DAY, {"day": day})
    return {TlsResult(*row[:4]): int(row[4]) for row in rows}


async def unreported(conn: AsyncConnection, before: date, limit: int) -> list[tuple[str, date]]:
    """Domains, and the days before `before` about which they have not had their report."""
    return [(row[0], row[1]) for row in await conn.execute(_UNREPORTED, {"before": before, "limit": limit})]


async def of_domain(conn: AsyncConnection, domain: str, day: date) -> dict[TlsResult, int]:
    """What was counted for one domain on one day."""
    rows = await conn.execute(_OF_DOMAIN, {"domain": domain, "day": day})
    return {TlsResult(*row[:4]): int(row[4]) for row in rows}


async def report(store: Store, domain: str, day: date, entry: Entry | None, due_in_s: float) -> bool:
    """Note that the domain is told, by a mail that is kept with it or without one. False where that is done."""
    async with store.driver("relay.tls_report") as conn, conn.transaction():
        done = await conn.fetchval(_DONE, domain, day, entry.spool_id if entry else None)
        if done is not None and entry is not None:
            await insert_within(conn, [entry], due_in_s)
    return done is not None


async def withdraw(conn: AsyncConnection, domain: str, day: date) -> None:
    """The domain is to have its report after all: what was done instead of a mail has come to nothing."""
    await conn.execute(_WITHDRAW, {"domain": domain, "day": day})


async def sweep(conn: AsyncConnection, before: date) -> int:
    """Forget the days before; returns how many rows."""
    await conn.execute(_SWEEP_REPORTS, {"before": before})
    return (await conn.execute(_SWEEP, {"before": before})).rowcount
