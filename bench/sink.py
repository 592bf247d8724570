"""A server that takes any mail and keeps none: Postfix's `smtp-sink`, which counts the messages."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

PROGRAM = "smtp-sink"
_MESSAGES = re.compile(rb"mesg=(\d+)")


class Sink:
    """One of them, listening."""

    def __init__(self, port: int, process: asyncio.subprocess.Process) -> None:
        self.port, self.messages = port, 0
        self._process = process
        self._news = asyncio.Event()

    def pause(self) -> None:
        """Say nothing more: who connects waits for a greeting."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Serve who has waited."""
        self._process.send_signal(signal.SIGCONT)

    async def has(self, messages: int, within_s: float) -> bool:
        """Whether so many have come by then."""
        try:
            async with asyncio.timeout(within_s):
                while self.messages < messages:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return False
        return True

    async def count(self) -> None:
        """Read its counter until it ends."""
        assert self._process.stdout is not None
        while said := await self._process.stdout.read(65536):
            if found := _MESSAGES.findall(said):
                self.messages = int(found[-1])
                self._news.set()


def installed() -> bool:
    """Whether this machine has one."""
    return shutil.which(PROGRAM) is not None


@asynccontextmanager
async def sink(port: int = 0) -> AsyncIterator[Sink]:
    """Listen on that port, or on one that is free."""
    if not port:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        PROGRAM, "-c", "-u", "nobody", f"127.0.0.1:{port}", "1000", stdout=asyncio.subprocess.PIPE
    )
    made = Sink(port, process)
    counting = asyncio.create_task(made.count())
    try:
        yield made
    finally:
        process.terminate()
        await process.wait()
        await counting
