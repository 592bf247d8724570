"""A copy of Postgres that may be behind, asked where that does no harm.

Two kinds of question go there: octets by their hash, which are right wherever they are found, and lists that people
read. Everything else, and above all what a client's view of a mailbox is made of, comes from the primary: who has seen
a number must not be shown an older one. Without a replica, or while it is away, the primary is asked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from services.core.store.engine import Connection, Store, StoreUnavailable
from services.core.telemetry import Metrics

T = TypeVar("T")

PATIENCE_S = 2.0  # the primary is not far
REST_S = 10.0  # for a replica that failed


class Replica:
    """One per process."""

    def __init__(
        self, url: str, pool: int, metrics: Metrics | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store, self._clock, self._rests_until = Store(url, pool), clock, 0.0
        self._asked = (
            metrics.counter("store_replica_reads", "Questions to the read-only Postgres, by outcome.", ["result"])
            if metrics is not None
            else None
        )

    async def ask(self, question: Callable[[Store], Awaitable[T]]) -> T | None:
        """What the replica answers; None where it cannot, or was left alone because it lately could not."""
        if self._clock() < self._rests_until:
            return None
        try:
            async with asyncio.timeout(PATIENCE_S):
                answer = await question(self._store)
        except (StoreUnavailable, TimeoutError):
            self._rests_until = self._clock() + REST_S
            self._count("away")
            return None
        self._count("answered")
        return answer

    async def close(self) -> None:
        """Close every connection."""
        await self._store.close()

    def _count(self, result: str) -> None:
        if self._asked is not None:
            self._asked.labels(result).inc()


async def listed(store: Store, name: str, question: Callable[[Connection], Awaitable[T]]) -> T:
    """What `question` finds, for people: on the replica where there is one. Raises `StoreUnavailable`."""

    async def ask(of: Store) -> tuple[T]:
        async with of.query(name) as conn:
            return (await question(conn),)

    found = await store.replica.ask(ask) if store.replica is not None else None
    return (found or await ask(store))[0]
