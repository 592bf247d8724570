"""Connections that wait a moment for the next letter of the same destination."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeAlias

from services.mxrouter import dialogue
from services.mxrouter.carriage import Smarthost
from services.mxrouter.dialogue import Broken
from services.mxrouter.link import Link

Destination: TypeAlias = str | Smarthost
"""A domain, or the smarthost that takes mail for many."""

_MOST: Final = 200
# A server may have been taken out of its domain's MX since.
_OLDEST_S: Final = 300.0


class Pool:
    """One per process. `idle_s` 0 keeps nothing; `most_messages` is what one connection carries."""

    def __init__(self, idle_s: float, most_messages: int) -> None:
        self._idle_s, self._most_messages = idle_s, most_messages
        self._kept: dict[Destination, list[tuple[Link, asyncio.TimerHandle]]] = {}
        self._count = 0
        self._born: dict[Link, float] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False

    def take(self, to: Destination, fit: Callable[[Link], bool]) -> Link | None:
        """A kept connection to there that is `fit`, the youngest first; None where there is none."""
        kept = self._kept.get(to, [])
        for at in range(len(kept) - 1, -1, -1):
            link = kept[at][0]
            if not link.alive:
                self._drop(to, link)
                link.abort()
            elif fit(link):
                self._drop(to, link)
                return link
        return None

    def give(self, to: Destination, link: Link) -> None:
        """Keep a connection for the next letter, or take leave of it."""
        loop = asyncio.get_running_loop()
        born = self._born.setdefault(link, loop.time())
        most = min(self._most_messages, link.peer.limit("MAILMAX") or self._most_messages)
        worn = link.messages >= most or loop.time() - born > _OLDEST_S
        if self._closed or not self._idle_s or worn or not link.alive or self._count >= _MOST:
            self.leave(link)
            return
        timer = loop.call_later(self._idle_s, self._expire, to, link)
        self._kept.setdefault(to, []).append((link, timer))
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
        for to in list(self._kept):
            for link, _ in list(self._kept[to]):
                self._expire(to, link)
        if self._leaving:
            await asyncio.wait(self._leaving)

    def _expire(self, to: Destination, link: Link) -> None:
        self._drop(to, link)
        self.leave(link)

    def _drop(self, to: Destination, link: Link) -> None:
        kept = self._kept[to]
        for each in kept:
            if each[0] is link:
                each[1].cancel()
                kept.remove(each)
                self._count -= 1
                break
        if not kept:
            del self._kept[to]


async def _quit(link: Link) -> None:
    if link.alive:
        with suppress(Broken):
            await link.perform(dialogue.farewell())
    link.abort()
