"""Room for messages in memory: how much there is, and who gets it when."""

from __future__ import annotations

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from services.core.bus import Bus
from services.core.store import blobs
from services.mxrouter.hold import SMALL, Hold
from tests.unit.mxrouter.house import House, Script, relaying, until

M = 1 << 20


class Crew:
    """Messages that come for room, stay until they are told to go, and are named in the order they got in."""

    def __init__(self, limit: int) -> None:
        self.hold = Hold(limit)
        self.got_in: list[str] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._go: dict[str, asyncio.Event] = {}

    async def come(self, name: str, octets: int) -> None:
        """`name`: its destination, and what tells it from others of it."""
        self._go[name] = asyncio.Event()

        async def stay() -> None:
            async with self.hold.room(name[0], octets):
                self.got_in.append(name)
                await self._go[name].wait()

        self._tasks[name] = asyncio.create_task(stay())
        await self._settle()

    async def go(self, name: str) -> None:
        self._go[name].set()
        await self._tasks[name]
        await self._settle()

    async def drop(self, *names: str) -> None:
        for name in names:
            self._tasks[name].cancel()
        await asyncio.wait([self._tasks[name] for name in names])
        await self._settle()

    async def _settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


async def test_who_finds_no_room_waits_for_it_in_turn() -> None:
    crew = Crew(10 * M)
    for name, octets in (("a", 5 * M), ("b", 4 * M), ("c", 5 * M), ("d", M), ("e", SMALL)):
        await crew.come(name, octets)
    assert crew.got_in == ["a", "b", "e"], "d would fit, but c stands before it; small ones never wait"
    await crew.go("b")
    assert crew.got_in == ["a", "b", "e", "c"]
    await crew.go("a")
    assert crew.got_in[-1] == "d"
    assert crew.hold.octets == 6 * M


async def test_a_destination_that_hangs_leaves_room_for_others() -> None:
    crew = Crew(10 * M)
    for name in ("a1", "a2", "a3", "a4"):
        await crew.come(name, 2 * M)
    assert crew.got_in == ["a1", "a2"]
    await crew.come("b", 5 * M)
    assert crew.got_in == ["a1", "a2", "b"]
    await crew.go("a1")
    assert crew.got_in[-1] == "a3"


async def test_what_is_larger_than_all_room_goes_alone() -> None:
    crew = Crew(10 * M)
    await crew.come("a", M)
    await crew.come("b", 50 * M)
    await crew.come("c", M)
    assert crew.got_in == ["a"]
    await crew.go("a")
    assert crew.got_in == ["a", "b"]
    await crew.go("b")
    assert crew.got_in == ["a", "b", "c"]


async def test_who_is_cancelled_takes_no_room_along() -> None:
    crew = Crew(10 * M)
    for name, octets in (("a", 6 * M), ("b", 6 * M), ("c", 4 * M)):
        await crew.come(name, octets)
    await crew.drop("b")
    assert crew.got_in == ["a", "c"]
    await crew.drop("a", "c")
    assert crew.hold.octets == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 12)), max_size=20))
async def test_nobody_waits_for_ever_and_no_more_is_held_than_may_be(comers: list[tuple[str, int]]) -> None:
    crew = Crew(10 * M)
    octets = {f"{destination}{n}": size * M for n, (destination, size) in enumerate(comers)}
    for name, size in octets.items():
        await crew.come(name, size)
    gone: Counter[str] = Counter()
    while len(gone) < len(octets):
        there = [name for name in crew.got_in if name not in gone]
        held = sum(octets[name] for name in there)
        assert held <= 10 * M or len(there) == 1
        assert held == crew.hold.octets
        gone[there[0]] += 1
        await crew.go(there[0])
    assert crew.hold.octets == 0


async def test_a_relay_has_no_more_in_hand_than_it_may(house: House, bus: Bus) -> None:
    carrier = Script()
    for n in range(3):
        carrier.hangs[f"far{n}.test"] = asyncio.Event()
    [blob] = await blobs.stage(house.store, [b"Subject: big\r\n\r\n" + b"x" * M])
    for n in range(3):
        await house.accept(f"b@far{n}.test", blob_id=blob, size=M)
    async with relaying(house, bus, carrier, memory=2 * M):
        await until(lambda: len(carrier.carried) == 2)
        # While those are sent, what is small passes, and the third waits with its lease.
        await house.accept("b@small.test")
        await until(lambda: carrier.to("small.test"))
        assert len(carrier.carried) == 3
        for event in carrier.hangs.values():
            event.set()
        await until(lambda: house.rows("SELECT 1 WHERE NOT EXISTS (SELECT FROM spool)"))
    assert len(carrier.carried) == 4
