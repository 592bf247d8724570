"""Many small writes made one: the more arrives at once the less each costs, and nobody waits for a timer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from services.core.store.engine import StoreUnavailable

Item = TypeVar("Item")
Result = TypeVar("Result")


class Group(Generic[Item, Result]):
    """Gathers what arrives while the last group is being written, and writes it as one.

    At most `limit` items and about `octets` octets are one group.
    """

    def __init__(self, write: Callable[[list[Item]], Awaitable[Sequence[Result]]], limit: int, octets: int) -> None:
        self._write, self._limit, self._octets = write, limit, octets
        self._waiting: list[tuple[Item, int, asyncio.Future[Result]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def put(self, item: Item, weight: int) -> Result:
        """Write `item` with its group; raises what the write raised. `weight`: octets it holds in memory."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, weight, future))
        if self._writer is None:
            self._writer = asyncio.create_task(self._drain())
        return await future

    async def _drain(self) -> None:
        try:
            while self._waiting:
                await self._settle(self._take())
        finally:
            # In the same step as the last look at `_waiting`: whoever comes next must find nobody at work.
            self._writer = None

    async def _settle(self, group: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._write([item for item, _ in group])
        except Exception as error:
            # What the store refuses as wrong is one item's fault: the others of the group do not pay for it.
            if len(group) > 1 and not isinstance(error, StoreUnavailable):
                for one in group:
                    await self._settle([one])
                return
            for _, future in group:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), result in zip(group, results, strict=True):
            if not future.done():  # its connection may be gone; the message is kept all the same
                future.set_result(result)

    def _take(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        octets = count = 0
        for _, weight, _ in self._waiting[: self._limit]:
            if count and octets + weight > self._octets:
                break
            octets, count = octets + weight, count + 1
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return [(item, future) for item, _, future in taken]
