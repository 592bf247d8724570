"""What operators do to the queue, on a real store and bus."""

from __future__ import annotations

import pytest

from services.contracts.v1.mail_pb2 import RelayDestination
from services.core.bus import Bus
from services.core.outbound import Outbound
from services.core.store import accounts
from services.core.store.engine import Store
from services.core.store.queued import Selection
from services.core.store.spool import Recipient
from services.core.subjects import relay_destination, trace
from services.mxrouter import queue
from services.mxrouter.queue import Kind
from tests.unit.mxrouter.house import House, until


@pytest.fixture
def house(store: Store) -> House:
    return House(store)


@pytest.fixture
def outbound(house: House, bus: Bus) -> Outbound:
    return Outbound(house.store, bus, service="test")


async def addresses(outbound: Outbound, selection: Selection) -> list[str]:
    """In their own order: that of the queue is left to chance for what came within a millisecond."""
    found = [one.address for one in await outbound.entries(selection, limit=100)]
    assert await outbound.count(selection) == len(found)
    return sorted(found)


async def test_filters(house: House, outbound: Outbound) -> None:
    old = await house.accept("a@far.test", "b@other.test")
    await house.age(2)
    await house.accept("c@far.test", sender="Bob@posta.test")
    await house.accept("d@far.test", sender="")
    async with house.store.begin("test") as conn:
        await accounts.create_domain(conn, "posta.test")
        local = await accounts.create(conn, "alice@posta.test")
    await house.accept(Recipient("alice@posta.test", local))

    assert await addresses(outbound, Selection()) == ["a@far.test", "b@other.test", "c@far.test", "d@far.test"]
    assert await addresses(outbound, Selection((old,))) == ["a@far.test", "b@other.test"]
    assert await addresses(outbound, Selection(domain="far.test")) == ["a@far.test", "c@far.test", "d@far.test"]
    assert await addresses(outbound, Selection(sender="bob@posta.test")) == ["c@far.test"]
    assert await addresses(outbound, Selection(sender="@posta.test", domain="far.test")) == ["a@far.test", "c@far.test"]
    assert await addresses(outbound, Selection(sender="")) == ["d@far.test"]
    assert await addresses(outbound, Selection(older_than_s=3600)) == ["a@far.test", "b@other.test"]
    assert await addresses(outbound, Selection(("nothing",))) == []


async def test_a_clock_that_is_set_gives_operators_nothing_that_is_being_sent(house: House, outbound: Outbound) -> None:
    await house.accept("a@far.test")
    await queue.claim(house.store, "pod", "far.test", Kind.FRESH, 1, 60)
    await house.jump(2)

    assert [one.state for one in await outbound.entries(Selection(), limit=9)] == ["sending"]
    assert await outbound.retry(Selection()) == 0
    assert await outbound.drop(Selection()) == 0


async def test_what_is_being_sent_is_left_alone(house: House, outbound: Outbound) -> None:
    await house.accept("a@far.test")
    await house.accept("b@other.test")
    await queue.claim(house.store, "pod", "far.test", Kind.FRESH, 1, 60)

    [sending, fresh] = await outbound.entries(Selection(), limit=9)
    assert (sending.state, sending.leased_by, fresh.state) == ("sending", "pod", "fresh")
    assert await outbound.retry(Selection()) == 1
    assert await outbound.bounce(Selection(domain="far.test"), "no") == 0
    assert await outbound.drop(Selection()) == 1
    assert await addresses(outbound, Selection()) == ["a@far.test"]
    # Held while it is sent: where that fails, it stays.
    assert await outbound.hold(Selection()) == 1
    assert await outbound.release(Selection()) == 1
    assert await house.recipients("due_at > now() + interval '30 s'") == [True]


async def test_held_ones_wait_for_a_release(house: House, outbound: Outbound) -> None:
    await house.accept("a@far.test")
    assert await outbound.hold(Selection(domain="far.test")) == 1
    assert await outbound.hold(Selection(domain="far.test")) == 0
    assert await outbound.retry(Selection()) == 0
    assert await queue.claim(house.store, "pod", "far.test", Kind.FRESH, 1, 60) == []
    assert await outbound.release(Selection()) == 1
    assert len(await queue.claim(house.store, "pod", "far.test", Kind.FRESH, 1, 60)) == 1


async def test_the_last_dropped_recipient_takes_the_message_with_it(house: House, outbound: Outbound) -> None:
    await house.accept("a@far.test", "b@other.test")
    assert await outbound.drop(Selection(domain="far.test")) == 1
    assert len(await house.rows("SELECT 1 FROM spool")) == 1
    assert await outbound.drop(Selection()) == 1
    assert await house.rows("SELECT 1 FROM spool") == []


async def test_relays_and_the_trace_are_told(house: House, outbound: Outbound, bus: Bus) -> None:
    heard: list[str] = []
    await bus.subscribe_hint(
        relay_destination(), RelayDestination, lambda hint: heard.append(f"{hint.destination} {hint.wait_ms}")
    )
    await bus.settled()
    spool_id = await house.accept("a@far.test")

    await outbound.retry(Selection(domain="far.test"))
    await outbound.drop(Selection(domain="far.test"))

    await until(lambda: heard)
    assert heard == ["far.test 0"]

    async def steps() -> list[tuple[str, str]]:
        return [(event.step, event.recipient) for event in await bus.read_trace(trace(spool_id))]

    async def both() -> bool:
        return len(await steps()) == 2

    await until(both)
    assert await steps() == [("retried", "a@far.test"), ("dropped", "a@far.test")]


async def test_the_header_is_shown(house: House, outbound: Outbound) -> None:
    spool_id = await house.accept("a@far.test")
    header = await outbound.header(spool_id)
    assert header.startswith("Received: from somewhere\nSubject: ")
    assert "hello" not in header
    assert await outbound.header("nothing") == ""
