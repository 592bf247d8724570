"""What a door is told when no verdict can be had: later, and why."""

import asyncio

import pytest

from services.contracts.v1.mail_pb2 import Envelope, ScanRequest, Verdict
from services.core.bus import Bus, scan
from services.core.scan import ask
from tests.unit.core.conftest import NatsServer

REQUEST = ScanRequest(envelope=Envelope(spool_id="one"), deadline_ms=1000)


def later(verdict: Verdict) -> str:
    assert (verdict.action, verdict.code, verdict.enhanced) == (Verdict.TEMPFAIL, 451, "4.7.1")
    return verdict.text


async def test_no_filter(bus: Bus) -> None:
    assert later(await ask(bus, REQUEST, 1)) == "No filter is running, try again later"


async def test_a_verdict_is_handed_on(bus: Bus) -> None:
    async def junk(request: ScanRequest) -> Verdict:
        return Verdict(action=Verdict.JUNK, text=request.envelope.spool_id)

    filters = await bus.respond(scan(), "filter", ScanRequest, junk, 1)
    assert await ask(bus, REQUEST, 5) == Verdict(action=Verdict.JUNK, text="one")
    await filters.unsubscribe()


async def test_a_filter_that_hangs(bus: Bus) -> None:
    async def hang(request: ScanRequest) -> Verdict:
        await asyncio.Event().wait()
        return Verdict()

    filters = await bus.respond(scan(), "filter", ScanRequest, hang, 1)
    assert later(await ask(bus, REQUEST, 0.05)) == "The filter did not answer in time, try again later"
    await filters.unsubscribe()


async def test_a_filter_that_crashes(bus: Bus) -> None:
    async def crash(request: ScanRequest) -> Verdict:
        raise ValueError

    filters = await bus.respond(scan(), "filter", ScanRequest, crash, 1)
    assert later(await ask(bus, REQUEST, 5)) == "The filter cannot be reached, try again later"
    await filters.unsubscribe()


async def test_a_filter_that_says_nothing(bus: Bus) -> None:
    async def mute(request: ScanRequest) -> Verdict:
        return Verdict()

    filters = await bus.respond(scan(), "filter", ScanRequest, mute, 1)
    assert later(await ask(bus, REQUEST, 5)) == "The filter gave no verdict, try again later"
    await filters.unsubscribe()


async def test_no_bus(mortal_nats: NatsServer) -> None:
    bus = await Bus.connect(mortal_nats.url, "test")  # it was never started
    assert later(await ask(bus, REQUEST, 1)) == "The filter cannot be reached, try again later"
    await bus.close()


async def test_cancellation_is_the_caller_s(bus: Bus) -> None:
    async def hang(request: ScanRequest) -> Verdict:
        await asyncio.Event().wait()
        return Verdict()

    filters = await bus.respond(scan(), "filter", ScanRequest, hang, 1)
    asking = asyncio.create_task(ask(bus, REQUEST, 60))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await filters.unsubscribe()
