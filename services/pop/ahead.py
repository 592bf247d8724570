"""Reads messages for one session, and those behind them before they are asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from services.core.ids import Uid
from services.pop.maildrop import Body, Maildrop, NoSuchMessage

COUNT = 64
OCTETS = 384 << 10  # of one batch; a session holds two at most, the one being sent and the next

Read = Callable[[Sequence[Uid]], Awaitable[dict[Uid, Body]]]


class Ahead:
    """A client that fetches in order finds the next message in memory; one that picks costs one read a message.

    Batches double from one message to `COUNT`, and the next is read while the present one is being sent.
    """

    __slots__ = ("_batch", "_behind", "_coming", "_coming_numbers", "_drop", "_last", "_read", "_ready")

    def __init__(self, drop: Maildrop, read: Read) -> None:
        self._drop, self._read = drop, read
        self._ready: dict[int, Body | None] = {}  # None: it was there at login and is gone
        self._coming: asyncio.Task[dict[int, Body | None]] | None = None
        self._coming_numbers: frozenset[int] = frozenset()
        self._batch = 1
        self._behind = 0  # the number behind all that was read
        self._last = 0

    async def body(self, number: int) -> Body:
        """The message; raises `NoSuchMessage`, also when others expunged it, and what reading raises."""
        self._drop.uid(number)
        in_order, self._last = number == self._last + 1, number
        if number not in self._ready:
            await self._turn_to(number, in_order)
        found = self._ready.pop(number, None)
        if in_order and self._coming is None and len(self._ready) <= self._batch // 2:
            self._begin()
        if found is None:
            raise NoSuchMessage(number)
        return found

    async def stop(self) -> None:
        """Forget everything; nothing is being read afterwards."""
        self._ready = {}
        if self._coming is not None:
            self._coming.cancel()
            await asyncio.wait((self._coming,))
            if not self._coming.cancelled():
                self._coming.exception()  # asked for by nobody, so missed by nobody
            self._coming = None

    async def _turn_to(self, number: int, in_order: bool) -> None:
        if self._coming is not None and number in self._coming_numbers:
            coming, self._coming = self._coming, None
            self._ready = await coming
            return
        await self.stop()
        self._batch = min(2 * self._batch, COUNT) if in_order else 1
        # What was asked for is read whatever its size; what follows it only within the limit.
        left = OCTETS - self._drop.size(number)
        numbers = [number, *self._drop.run(number + 1, self._batch - 1, left)]
        self._ready = await self._bodies(self._uids(numbers))
        self._behind = numbers[-1] + 1

    def _begin(self) -> None:
        batch = min(2 * self._batch, COUNT)
        if numbers := self._drop.run(self._behind, batch, OCTETS):
            self._batch, self._behind = batch, numbers[-1] + 1
            self._coming_numbers = frozenset(numbers)
            # Told by uid now: one of them may be marked before the task runs.
            self._coming = asyncio.get_running_loop().create_task(self._bodies(self._uids(numbers)))

    def _uids(self, numbers: Sequence[int]) -> dict[int, Uid]:
        return {number: self._drop.uid(number) for number in numbers}

    async def _bodies(self, uids: dict[int, Uid]) -> dict[int, Body | None]:
        found = await self._read(list(uids.values()))
        return {number: found.get(uid) for number, uid in uids.items()}
