"""The relay as the service opens it."""

from __future__ import annotations

import asyncio

from services.contracts.v1.mail_pb2 import Ticket
from services.core.bus import Bus, work_remote
from services.core.directory import Directory
from services.core.service import Service
from services.core.settings import Relay, Settings
from services.core.telemetry import logger
from services.mxrouter.wayout import open_relay
from tests.unit.mxrouter.house import House, Script, until


async def opened(house: House, bus: Bus, carrier: Script, relay: Relay) -> Service:
    service = Service("mxrouter", Settings(hostname="mx.posta.test", relay=relay), logger("test"))
    directory = Directory(house.store, bus)
    await directory.start()
    await open_relay(service, house.store, bus, directory, carrier)
    return service


async def test_it_relays_by_ticket_until_it_is_told_to_stop(house: House, bus: Bus) -> None:
    carrier = Script()
    # A look at the queue comes too late for this test: it is the ticket that wakes.
    service = await opened(house, bus, carrier, Relay(poll_s=600))
    await until(lambda: b"posta_mxrouter_relay_queue_recipients" in service.metrics.exposition())

    spool_id = await house.accept("b@far.test")
    await bus.publish_work(work_remote(), Ticket(envelope={"spool_id": spool_id}), spool_id)
    await until(lambda: house.rows("SELECT 1 WHERE NOT EXISTS (SELECT FROM spool)"))
    assert carrier.to("far.test") == [["b@far.test"]]
    assert b'posta_mxrouter_relay_attempts_total{result="relayed"} 1.0' in service.metrics.exposition()

    carrier.hangs["slow.test"] = asyncio.Event()
    spool_id = await house.accept("b@slow.test")
    await bus.publish_work(work_remote(), Ticket(envelope={"spool_id": spool_id}), spool_id)
    await until(lambda: carrier.to("slow.test"))
    stopping = asyncio.create_task(service._wind_down())
    carrier.hangs["slow.test"].set()
    await stopping
    assert await house.recipients() == []


async def test_a_pod_that_only_listens_relays_nothing(house: House, bus: Bus) -> None:
    carrier = Script()
    service = await opened(house, bus, carrier, Relay(enabled=False))
    assert b"relay" not in service.metrics.exposition()
    assert not service._tasks
