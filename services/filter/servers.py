"""Several servers that give the same answer: asked in turn, one that failed last for a few seconds."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

S = TypeVar("S")
T = TypeVar("T")

_SHUNNED_S = 5.0


class NoServer(Exception):
    """None of them gave an answer that can be relied on; the text has every reason."""


class Servers(Generic[S]):
    """All servers of one kind that this process knows."""

    def __init__(self, servers: Sequence[S], deadline_s: float) -> None:
        self._servers, self._deadline_s = tuple(servers), deadline_s
        self._turns = itertools.count()
        self._shunned: dict[S, float] = {}

    async def ask(self, question: Callable[[S], Awaitable[T]]) -> T:
        """The first answer to `question(server)` that is one, within the deadline.

        A question fails by OSError, EOFError, ValueError or by taking too long, and is then asked of the next server.
        Raises NoServer where none is left.
        """
        loop = asyncio.get_running_loop()
        # Each of those that are left gets an equal share of the time that is left; a hung one must not use it all up.
        end = loop.time() + self._deadline_s * 0.95
        reasons = []
        order = self.order(loop.time())
        for asked, server in enumerate(order):
            try:
                async with asyncio.timeout((end - loop.time()) / (len(order) - asked)):
                    return await question(server)
            except TimeoutError:
                reasons.append(f"{server}: no answer in time")
            except (OSError, EOFError, ValueError) as error:
                reasons.append(f"{server}: {error}")
            self._shunned[server] = loop.time() + _SHUNNED_S
        raise NoServer("; ".join(reasons))

    def order(self, now: float) -> list[S]:
        """Who is to be asked, best first; moves the turn on."""
        turn = next(self._turns) % len(self._servers)
        rotated = self._servers[turn:] + self._servers[:turn]
        return sorted(rotated, key=lambda each: self._shunned.get(each, 0.0) > now)
