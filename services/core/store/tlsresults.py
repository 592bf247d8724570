"""How TLS with other domains went, by day (RFC 8460)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


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


async def sweep(conn: AsyncConnection, before: date) -> int:
    """Forget the days before; returns how many rows."""
    return (await conn.execute(_SWEEP, {"before": before})).rowcount
