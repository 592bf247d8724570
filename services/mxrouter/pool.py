"""Connections that wait a moment for the next letter of the same route."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from services.mxrouter import dialogue
from services.mxrouter.carriage import Route
from services.mxrouter.dialogue import Broken
from services.mxrouter.link import Link

_MOST: Final = 200
# A server may have been taken out of its domain's MX since.
_OLDEST_S: Final = 300.0


class Pool:
    """One per process. `idle_s` 0 keeps nothing; `most_messages` is what one connection carries."""

    def __init__(self, idle_s: float, most_messages: int) -> None:
        self._idle_s, self._most_messages = idle_s, most_messages
        self._kept: dict[Route, list[tuple[Link, asyncio.TimerHandle]]] = {}
        self._count = 0
        self._born: dict[Link, float] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False

    def take(self, route: Route, fit: Callable[[Link], bool]) -> Link | None:
        """A kept connection of the route that is `fit`, the youngest first; None where there is none."""
        kept = self._kept.get(route, [])
        for at in range(len(kept) - 1, -1, -1):
            link = kept[at][0]
            if not link.alive:
                self._drop(route, link)
                link.abort()
            elif fit(link):
                self._drop(route, link)
                return link
        return None

    def give(self, route: Route, link: Link) -> None:
        """Keep a connection for the next letter, or take leave of it."""
        loop = asyncio.get_running_loop()
        born = self._born.setdefault(link, loop.time())
        most = min(self._most_messages, link.peer.limit("MAILMAX") or self._most_messages)
        worn = link.messages >= most or loop.time() - born > _OLDEST_S
        if self._closed or not self._idle_s or worn or not link.alive or self._count >= _MOST:
            self.leave(link)
            return
        timer = loop.call_later(self._idle_s, self._expire, route, link)
        self._kept.setdefault(route, []).append((link, timer))
        self._count += 1

    def leave(self, link: Link) -> None:
        """Say QUIT in the background and close."""
        self._born.pop(link, None)
        task = asyncio.get_running_loop().create_task(_quit(link))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        """Take leave of all of them."""
        self._closed = True
        for route in list(self._kept):
            for link, _ in list(self._kept[route]):
                self._expire(route, link)
        if self._leaving:
            await asyncio.wait(self._leaving)

    def _expire(self, route: Route, link: Link) -> None:
        self._drop(route, link)
        self.leave(link)

    def _drop(self, route: Route, link: Link) -> None:
        kept = self._kept[route]
        for each in kept:
            if each[0] is link:
                each[1].cancel()
                kept.remove(each)
                self._count -= 1
                break
        if not kept:
            del self._kept[route]


async def _quit(link: Link) -> None:
    if link.alive:
        with suppress(Broken):
            await link.perform(dialogue.farewell())
    link.abort()
