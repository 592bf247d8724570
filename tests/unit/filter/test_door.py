"""The scan door on a real bus and a real store."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from services.contracts.v1 import mail_pb2 as pb
from services.core.bus import Bus, trace
from services.core.ids import BlobId
from services.core.scan import ask
from services.core.settings import Filter
from services.core.store import blobs
from services.core.store.engine import Store
from services.core.telemetry import Metrics, logger
from services.filter.door import Door
from services.filter.engine import Engine, Finding, Stage
from services.filter.engines import configured
from services.filter.engines.policy import GTUBE
from services.filter.examined import Examined
from services.filter.pipeline import Pipeline
from services.filter.reading import Reading
from services.filter.verdict import Action, Policy
from tests.unit.filter.letters import EICAR, HEAD, PLAIN, letter, part


def door(store: Store, bus: Bus, engines: Sequence[Engine] | None = None, concurrency: int = 4) -> Door:
    log, metrics, policy = logger("filter"), Metrics("filter"), Policy()
    pipeline = Pipeline(configured(Filter()) if engines is None else engines, policy, log, metrics)
    return Door(Reading(store), pipeline, policy, bus, log, metrics, concurrency=concurrency, host="here")


async def request(store: Store, octets: bytes, deadline_ms: int = 5000, **more: Any) -> pb.ScanRequest:
    (blob_id,) = await blobs.stage(store, [octets])
    return pb.ScanRequest(blob_id=blob_id, size=len(octets), deadline_ms=deadline_ms, **more)


def hanging(started: asyncio.Event, let_go: asyncio.Event) -> Engine:
    async def examine(message: Examined) -> Sequence[Finding]:
        started.set()
        await let_go.wait()
        return []

    return Engine("slow", Stage.CONTENT, 60, examine)


@pytest.mark.parametrize(
    ("octets", "action", "code"),
    [
        (PLAIN, Action.ACCEPT, 0),
        (letter(part(EICAR, "eicar.com")), Action.REJECT, 554),
        (letter(part(b"x" * 400_000), part(EICAR)), Action.REJECT, 554),
        (HEAD + b"\r\n" + GTUBE + b"\r\n", Action.JUNK, 0),
        (letter(part(b"x", "a.exe")), Action.REJECT, 550),
    ],
)
async def test_verdicts_over_the_bus(store: Store, bus: Bus, octets: bytes, action: int, code: int) -> None:
    subscription = await door(store, bus).open()
    verdict = await ask(bus, await request(store, octets), 5)
    assert (verdict.action, verdict.code) == (action, code)
    await subscription.unsubscribe()


async def test_the_trace_tells_what_was_found(store: Store, bus: Bus) -> None:
    envelope = pb.Envelope(spool_id="tracedscan")
    recipients = [pb.Recipient(address="bob@posta.test", account_id=2)]
    asked = await request(
        store, letter(part(EICAR)), envelope=envelope, sender="alice@posta.test", recipients=recipients
    )
    verdict = await door(store, bus).scan(asked)
    assert verdict.text == "Message refused: virus found (EICAR-Test-Signature)"
    events: list[pb.TraceEvent] = []
    async with asyncio.timeout(10):
        while not events:
            events = await bus.read_trace(trace("tracedscan"))
    (event,) = events
    assert (event.step, event.service, event.host) == ("scanned", "filter", "here")
    assert (event.sender, event.recipient, event.message_id) == ("alice@posta.test", "bob@posta.test", "one@posta.test")
    assert event.detail == "reject: Message refused: virus found (EICAR-Test-Signature)"
    assert [each.symbol for each in event.findings] == ["EICAR-Test-Signature"]
    assert abs(event.at_us / 1e6 - time.time()) < 60


async def test_a_blob_that_is_not_there(store: Store, bus: Bus) -> None:
    verdict = await door(store, bus).scan(pb.ScanRequest(blob_id=bytes(32), size=1, deadline_ms=1000))
    assert (verdict.action, verdict.code, verdict.enhanced) == (Action.TEMPFAIL, 451, "4.3.0")


async def test_no_store(bus: Bus) -> None:
    nowhere = Store("postgresql://posta@127.0.0.1:1/none")
    verdict = await door(nowhere, bus).scan(pb.ScanRequest(blob_id=bytes(32), size=1, deadline_ms=5000))
    assert (verdict.action, verdict.text) == (Action.TEMPFAIL, "The mail store cannot be reached, try again later")
    await nowhere.close()


async def test_the_answer_comes_before_the_deadline_and_names_the_engine(store: Store, bus: Bus) -> None:
    one = door(store, bus, [hanging(asyncio.Event(), asyncio.Event())])
    asked = await request(store, PLAIN, deadline_ms=500)
    started = time.monotonic()
    verdict = await one.scan(asked)
    assert time.monotonic() - started < 0.5
    assert (verdict.action, verdict.code) == (Action.TEMPFAIL, 451)
    assert "(slow)" in verdict.text


async def test_overload_is_said_at_once(store: Store, bus: Bus) -> None:
    started, let_go = asyncio.Event(), asyncio.Event()
    one = door(store, bus, [hanging(started, let_go)], concurrency=1)
    asked = await request(store, PLAIN, deadline_ms=20_000)
    first = [asyncio.create_task(one.scan(asked)) for _ in range(9)]
    await started.wait()
    verdict = await one.scan(asked)
    assert (verdict.action, verdict.text) == (Action.TEMPFAIL, "The filter is busy, try again later")
    let_go.set()
    assert {verdict.action for verdict in await asyncio.gather(*first)} == {Action.ACCEPT}


async def test_a_slot_that_does_not_come_free_in_time(store: Store, bus: Bus) -> None:
    started, let_go = asyncio.Event(), asyncio.Event()
    one = door(store, bus, [hanging(started, let_go)], concurrency=1)
    asked = await request(store, PLAIN, deadline_ms=20_000)
    first = asyncio.create_task(one.scan(asked))
    await started.wait()
    asked.deadline_ms = 50
    assert (await one.scan(asked)).text == "The filter is busy, try again later"
    let_go.set()
    assert (await first).action == Action.ACCEPT


async def test_a_scan_under_way_is_finished_when_the_filter_drains(store: Store, bus: Bus) -> None:
    started, let_go = asyncio.Event(), asyncio.Event()
    await door(store, bus, [hanging(started, let_go)]).open()
    asking = asyncio.create_task(ask(bus, await request(store, PLAIN), 5))
    await started.wait()
    draining = asyncio.create_task(bus.drain(5))
    await asyncio.sleep(0)
    let_go.set()
    assert (await asking).action == Action.ACCEPT
    await draining


async def test_reads_asked_for_together_share_a_query(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    read = blobs.read

    async def counted(store: Store, ids: Sequence[BlobId]) -> dict[BlobId, bytes]:
        asked.append(len(ids))
        return await read(store, ids)

    monkeypatch.setattr(blobs, "read", counted)
    contents = [b"%d" % n for n in range(20)]
    ids = await blobs.stage(store, contents)
    reading = Reading(store)
    together = [asyncio.create_task(reading.read(each, 1)) for each in (*ids, ids[5])]
    await asyncio.sleep(0)
    together[0].cancel()
    assert await asyncio.gather(*together[1:]) == [*contents[1:], contents[5]]
    assert asked == [20]
    assert await reading.read(BlobId(bytes(32)), 1) is None
    await reading.read(ids[0], 2**21)
    assert asked == [20, 1, 1]
