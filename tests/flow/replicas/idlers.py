"""Many mail programs that wait for news by IDLE, come back whenever they are sent away, and remember how that was."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

AT_ONCE = 20  # of the first connections
AGAIN_S = 0.2  # a mail program does not knock in a loop


@dataclass
class Away:
    """One absence: when the client was told to go or was cut off, and when it was waiting for news again."""

    since: float
    told: bool
    until: float = 0.0


class Idler:
    """One mail program, in the INBOX of one user."""

    def __init__(self, port: int, tls: ssl.SSLContext, user: Any, at_once: asyncio.Semaphore) -> None:
        self.absences: list[Away] = []
        self.waiting = asyncio.Event()
        self.messages = 0
        self.news = asyncio.Condition()
        self._port, self._tls, self._user, self._at_once = port, tls, user, at_once

    async def run(self) -> None:
        """Wait for news until cancelled."""
        async with self._at_once:
            stay = await self._connected()
        while True:
            told = await self._stay(*stay)
            away = Away(time.monotonic(), told)
            self.absences.append(away)
            self.waiting.clear()
            stay = await self._connected()
            away.until = time.monotonic()

    async def until_messages(self, count: int) -> None:
        """Wait until it has been told of so many messages."""
        async with self.news:
            await self.news.wait_for(lambda: self.messages >= count)

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while True:
            with suppress(OSError, EOFError):
                return await self._connect()
            await asyncio.sleep(AGAIN_S)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """In IDLE. Raises OSError and EOFError where nobody serves it to that point."""
        reader, writer = await asyncio.open_connection("localhost", self._port, ssl=self._tls)
        try:
            writer.write(f'a LOGIN "{self._user.address}" "{self._user.password}"\r\nb SELECT INBOX\r\n'.encode())
            await self._read_to(reader, b"b OK")
            writer.write(b"c IDLE\r\n")
            await self._read_to(reader, b"+")
        except BaseException:
            writer.close()
            raise
        self.waiting.set()
        return reader, writer

    async def _read_to(self, reader: asyncio.StreamReader, word: bytes) -> None:
        while not (line := await reader.readuntil(b"\n")).startswith(word):
            assert not re.match(rb"\w (NO|BAD)", line), line
            await self._hear(line)

    async def _stay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Listen to the end of the connection: whether that was announced."""
        try:
            while line := await reader.readline():
                if line.startswith(b"* BYE"):
                    return True
                await self._hear(line)
        except OSError:
            return False
        finally:
            writer.close()
        return False

    async def _hear(self, line: bytes) -> None:
        if found := re.match(rb"\* (\d+) EXISTS", line):
            async with self.news:
                self.messages = int(found[1])
                self.news.notify_all()


@dataclass
class House:
    """All of them."""

    idlers: list[Idler]
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def __aenter__(self) -> House:
        self._tasks = [asyncio.create_task(each.run()) for each in self.idlers]
        await self.all_wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        for each in self._tasks:
            each.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def all_wait(self) -> None:
        """Return when every one waits for news. Raises what one of them could not bear."""
        waiting = asyncio.gather(*(each.waiting.wait() for each in self.idlers))
        await asyncio.wait((waiting, *self._tasks), return_when=asyncio.FIRST_COMPLETED)
        for each in self._tasks:
            if each.done():
                waiting.cancel()
                each.result()

    @property
    def absences(self) -> list[Away]:
        return sorted((away for each in self.idlers for away in each.absences), key=lambda away: away.since)


def most_at_once(absences: list[Away]) -> int:
    """How many were away at the worst moment."""
    steps = sorted([(away.since, 1) for away in absences] + [(away.until, -1) for away in absences])
    out = worst = 0
    for _, step in steps:
        out += step
        worst = max(worst, out)
    return worst


def busiest_second(moments: list[float]) -> int:
    """How many of these fall into one second, counted from the first of them."""
    return max(Counter(int(each - min(moments)) for each in moments).values(), default=0)
