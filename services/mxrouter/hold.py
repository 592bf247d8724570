"""How many octets of messages one pod has in memory at once; whoever would be too many waits for room.

- Small messages pass uncounted: the number of visits bounds them, and they are never to wait for large ones.
- Of the room that is left to large ones a destination gets half at most, so that one that hangs leaves the rest to
  others. A message that is larger than that passes when nothing else of its destination is in hand.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

SMALL: Final = 256 << 10


class _Waiting(NamedTuple):
    destination: str
    octets: int
    let_in: asyncio.Future[None]


class Hold:
    """One per pod."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: Counter[str] = Counter()
        self._queue: list[_Waiting] = []
        self.octets = 0
        """In hand now, small messages apart."""

    @asynccontextmanager
    async def room(self, destination: str, octets: int) -> AsyncIterator[None]:
        """Within the block there is room for a message of so many octets; first come, first served."""
        if octets <= SMALL:
            yield
            return
        await self._enter(destination, octets)
        try:
            yield
        finally:
            self._leave(destination, octets)

    async def _enter(self, destination: str, octets: int) -> None:
        waiting = _Waiting(destination, octets, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._let_in()
        try:
            await waiting.let_in
        except asyncio.CancelledError:
            if waiting in self._queue:
                self._queue.remove(waiting)
            else:
                self._leave(destination, octets)  # let in and cancelled at once
            self._let_in()
            raise

    def _leave(self, destination: str, octets: int) -> None:
        self.octets -= octets
        self._held[destination] -= octets
        if not self._held[destination]:
            del self._held[destination]
        self._let_in()

    def _let_in(self) -> None:
        for waiting in list(self._queue):
            if self.octets and self.octets + waiting.octets > self._limit:
                return  # a smaller one behind does not pass: the large one would wait for ever
            own = self._held[waiting.destination]
            if own and own + waiting.octets > self._limit // 2:
                continue
            self._queue.remove(waiting)
            self.octets += waiting.octets
            self._held[waiting.destination] += waiting.octets
            waiting.let_in.set_result(None)
