"""Who may be visited, by how many at once, and how pods share what a destination may be given."""

from __future__ import annotations

import asyncio

from services.core.bus import Bus
from services.mxrouter.carriage import Fate, Outcome
from services.mxrouter.destinations import Destinations, Down
from services.mxrouter.peers import Peers
from tests.unit.mxrouter.house import until

DEAD = Outcome(Fate.LATER, 451, "4.4.1", "No answer", unreachable=True)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def known(clock: Clock, connections: int = 4, per_minute: int = 0, pods: int = 1) -> Destinations:
    return Destinations(clock, lambda limit: max(1, limit // pods), connections=connections, per_minute=per_minute)


def test_so_many_visits_at_once() -> None:
    found = known(Clock(), connections=2)
    found.stood("far.test")
    for _ in range(2):
        assert found.open("far.test")
        found.enter("far.test")
    assert not found.open("far.test")
    assert found.open("other.test")
    found.leave("far.test")
    assert found.open("far.test")


def test_a_stranger_is_visited_by_one_until_it_has_answered() -> None:
    found = known(Clock())
    found.enter("far.test")
    assert not found.open("far.test")
    found.stood("far.test")
    assert found.open("far.test")


def test_what_fell_is_left_alone_then_tried_by_one() -> None:
    clock = Clock()
    found = known(clock)
    found.enter("far.test")
    found.fell("far.test", 1, 60, DEAD)
    found.leave("far.test")
    clock.now += 20
    assert found.down("far.test") == Down(40, DEAD)
    assert not found.alive("far.test")
    clock.now += 40
    assert found.down("far.test") is None
    assert found.open("far.test")
    found.enter("far.test")
    assert not found.open("far.test")
    assert found.failures("far.test") == 1
    assert found.stood("far.test")
    assert found.open("far.test")
    assert found.living() == ["far.test"]
    assert not found.stood("far.test")  # no news any more


def test_whoever_has_not_answered_for_an_hour_is_not_taken_for_alive() -> None:
    clock = Clock()
    found = known(clock)
    found.stood("far.test")
    clock.now += 3599
    assert found.alive("far.test")
    clock.now += 1
    assert found.living() == []


def test_an_operator_knows_better() -> None:
    found = known(Clock())
    for name in ("a.test", "b.test"):
        found.fell(name, 3, 600, DEAD)
    found.forgive("a.test")
    found.forgive("unheard-of.test")
    assert (found.down("a.test"), found.down("b.test") is None) == (None, False)
    found.forgive()
    assert found.down("b.test") is None


def test_a_rate_is_kept_and_shared() -> None:
    clock = Clock()
    found = known(clock, per_minute=120, pods=2)
    sent = 0
    while found.may_send("far.test"):
        found.sent("far.test")
        sent += 1
    assert sent == 10  # ten seconds' worth of half of 120 a minute
    assert not found.open("far.test")
    clock.now += 1.01
    assert found.open("far.test")
    found.sent("far.test")
    assert not found.may_send("far.test")
    clock.now += 3600
    assert found.may_send("other.test")


def test_what_is_known_does_not_grow_for_ever() -> None:
    clock = Clock()
    found = known(clock)
    for number in range(10_001):
        found.fell(f"dead{number}.test", 1, 60, DEAD)
    clock.now += 7 * 3600
    found.enter("far.test")
    found.leave("far.test")
    assert found.failures("dead1.test") == 0


async def test_pods_share_limits_with_those_they_hear(bus: Bus) -> None:
    clock = Clock()
    a, b = Peers(bus, "a", clock), Peers(bus, "b", clock)
    await a.start()
    await b.start()
    assert a.share(20) == 20  # nobody was heard yet, and we are there
    announcing = [asyncio.create_task(each.announce_forever()) for each in (a, b)]
    await until(lambda: a.count() == b.count() == 2)
    assert (a.share(20), a.share(1)) == (10, 1)
    clock.now += 60
    assert a.count() == 1
    for task in announcing:
        task.cancel()
