"""Answers kept for a while: bounded, expiring, asked for once however many wait, and forgotten when told."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from time import monotonic
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Cache(Generic[K, V]):
    """At most `size` answers, the least recently used one leaves first; each is good for `ttl_s`."""

    __slots__ = ("_age", "_clock", "_flights", "_kept", "_size", "_ttl_s")

    def __init__(self, size: int, ttl_s: float, clock: Callable[[], float] = monotonic) -> None:
        self._size, self._ttl_s, self._clock = size, ttl_s, clock
        self._kept: OrderedDict[K, tuple[float, V]] = OrderedDict()
        self._flights: dict[K, asyncio.Future[V]] = {}
        self._age = 0  # rises with every forgetting, so that an answer asked for before it is not kept after it

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def age(self) -> int:
        """To be handed to `put` with an answer that was asked for now."""
        return self._age

    def peek(self, key: K) -> V | None:
        """The answer if it is here and good."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept[0] <= self._clock():
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return kept[1]

    def put(self, key: K, value: V, age: int, ttl_s: float | None = None) -> None:
        """Keep an answer that was asked for at `age`, unless something was forgotten since."""
        if age != self._age:
            return
        self._kept[key] = (self._clock() + (self._ttl_s if ttl_s is None else ttl_s), value)
        self._kept.move_to_end(key)
        if len(self._kept) > self._size:
            self._kept.popitem(last=False)

    async def get(self, key: K, load: Callable[[], Awaitable[V]], ttl_s: Callable[[V], float] | None = None) -> V:
        """The answer, from `load` if it is not here: one call for all who ask meanwhile; raises what it raised.

        A cancelled caller does not cancel the load, which others may be waiting for. `ttl_s` says how long this
        answer is good, where that depends on the answer.
        """
        kept = self.peek(key)
        if kept is not None:
            return kept
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.ensure_future(self._load(key, load, ttl_s))
            self._flights[key] = flight
            flight.add_done_callback(_seen)
        return await asyncio.shield(flight)

    async def _load(self, key: K, load: Callable[[], Awaitable[V]], ttl_s: Callable[[V], float] | None) -> V:
        age = self._age
        try:
            value = await load()
        finally:
            if self._flights.get(key) is asyncio.current_task():
                del self._flights[key]
        self.put(key, value, age, ttl_s and ttl_s(value))
        return value

    def forget(self, which: Callable[[K, V], bool] | None = None) -> None:
        """Forget those answers (None: all), and keep none that is being asked for at this moment."""
        self._age += 1
        self._flights.clear()  # whoever asks from now on must not join a question that is older than the change
        if which is None:
            self._kept.clear()
        else:
            for key in [key for key, (_, value) in self._kept.items() if which(key, value)]:
                del self._kept[key]


def _seen(flight: asyncio.Future[V]) -> None:
    # Every waiter may have been cancelled; the error is then nobody's, not an unretrieved one.
    if not flight.cancelled():
        flight.exception()
