"""TLS results on their way into the store."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta

import pytest
import structlog

from services.core.store import tlsresults
from services.core.store.engine import Store, StoreUnavailable
from services.core.store.tlsresults import TlsResult
from services.core.telemetry import Metrics
from services.mxrouter.tally import Tally

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
GOOD = TlsResult("a.test", "tlsa", "mx.a.test", "successful")
BAD = GOOD._replace(policy="sts", result="certificate-expired")


async def of_day(store: Store, day: date) -> dict[TlsResult, int]:
    async with store.query("test") as conn:
        return await tlsresults.of_day(conn, day)


async def test_counts_of_all_processes_add_up_by_day(store: Store) -> None:
    tallies = [Tally(Metrics("mxrouter"), lambda: NOW) for _ in range(3)]
    for tally in tallies:
        for session in (GOOD, BAD, GOOD):
            tally.count(session)
    await asyncio.gather(*(tally.keep(store) for tally in tallies))
    await tallies[0].keep(store)

    assert await of_day(store, NOW.date()) == {GOOD: 6, BAD: 3}

    later = Tally(Metrics("mxrouter"), lambda: NOW + timedelta(days=9))
    later.count(BAD)
    await later.keep(store)
    assert await of_day(store, NOW.date()) == {}, "old days are forgotten"
    assert await of_day(store, date(2026, 12, 4)) == {BAD: 1}


async def test_nothing_is_lost_while_the_store_is_away(store: Store) -> None:
    metrics = Metrics("mxrouter")
    tally = Tally(metrics, lambda: NOW)
    tally.count(GOOD)
    away = Store("postgresql://nobody@127.0.0.1:1/nowhere")

    with pytest.raises(StoreUnavailable):
        await tally.keep(away)
    await away.close()
    tally.count(GOOD)
    await tally.keep(store)

    assert await of_day(store, NOW.date()) == {GOOD: 2}
    assert b'posta_mxrouter_tls_sessions_total{policy="tlsa",result="successful"} 2.0' in metrics.exposition()


async def test_what_is_left_is_kept_at_the_end(store: Store) -> None:
    tally = Tally(Metrics("mxrouter"), lambda: NOW)
    keeping = asyncio.create_task(tally.keep_all(store, structlog.get_logger(), 3600))
    await asyncio.sleep(0)
    tally.count(GOOD)
    keeping.cancel()
    await asyncio.wait((keeping,))

    assert await of_day(store, NOW.date()) == {GOOD: 1}
