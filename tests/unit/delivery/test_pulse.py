"""The gauges of what waits, against a real spool and real streams."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from services.core.bus import Bus
from services.core.store.engine import Store
from services.core.telemetry import Metrics, logger
from services.delivery.pulse import Pulse
from tests.unit.core.conftest import bus, nats_server

__all__ = ["bus", "nats_server"]

_SPOOL = """
INSERT INTO spool (spool_id, blob_id, prefix, size, sender, sender_account_id, door, client, received_at)
VALUES ('a', '\\x01', '', 1, 'x@y', 7, 'submission', '', now() - interval '1 hour')
"""
_RECIPIENTS = """
INSERT INTO spool_recipients (spool_id, n, address, account_id, attempts, due_at) VALUES
  ('a', 0, 'local@y', 7, 0, now() + interval '20 seconds'),
  ('a', 1, 'far@z', NULL, 4, now() - interval '1 minute'),
  ('a', 2, 'away@z', NULL, 1, now() + interval '1 hour')
"""
_HELD = """
INSERT INTO spool_recipients (spool_id, n, address, attempts, due_at, held)
VALUES ('a', 3, 'held@z', 0, now() - interval '1 day', true)
"""


def figures(metrics: Metrics) -> dict[str, float]:
    lines = [line for line in metrics.exposition().decode().splitlines() if line.startswith("posta_")]
    return {
        name.removeprefix("posta_delivery_"): float(value) for name, value in (line.rsplit(" ", 1) for line in lines)
    }


@pytest.fixture
def pulse(store: Store, bus: Bus) -> tuple[Pulse, Metrics]:
    metrics = Metrics("delivery")
    return Pulse(store, bus, logger("test"), metrics), metrics


async def test_what_waits_is_told_by_kind(pulse: tuple[Pulse, Metrics], store: Store) -> None:
    async with store.begin("test") as conn:
        await conn.execute(text(_SPOOL))
        await conn.execute(text(_RECIPIENTS))
        await conn.execute(text(_HELD))  # an operator holds it: nobody is late with it
    await pulse[0].look()
    told = figures(pulse[1])
    assert told['spool_recipients{kind="local"}'] == 1
    assert told['spool_recipients{kind="remote"}'] == 3
    assert told['spool_failing{kind="remote"}'] == 1
    assert told['spool_failing{kind="local"}'] == 0
    assert 3600 <= told['spool_oldest_seconds{kind="remote"}'] < 3700
    assert 60 <= told['spool_overdue_seconds{kind="remote"}'] < 90
    assert told['spool_overdue_seconds{kind="local"}'] == 0
    assert told["spool_one_sender"] == 3
    assert told["store_replication_lag_seconds"] == 0


async def test_an_empty_spool_is_told_as_empty(pulse: tuple[Pulse, Metrics], store: Store) -> None:
    async with store.begin("test") as conn:
        await conn.execute(text(_SPOOL))
        await conn.execute(text(_RECIPIENTS))
    await pulse[0].look()
    async with store.begin("test") as conn:
        await conn.execute(text("DELETE FROM spool_recipients"))
    await pulse[0].look()
    told = figures(pulse[1])
    assert {value for name, value in told.items() if name.startswith("spool_")} == {0}
    assert told['stream_octets{stream="work"}'] >= 0
