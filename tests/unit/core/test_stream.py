"""One connection as a server sees it: deadlines, ends, back-pressure, and what a crash in its session leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from services.core.crowd import Limits
from services.core.stream import Listener, Stream
from services.core.telemetry import logger

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def listening(serve: Callable[[Stream], Awaitable[None]], **limits: Any) -> AsyncIterator[Listener]:
    listener = Listener(serve, logger("test"), **limits)
    await listener.listen("127.0.0.1", 0)
    try:
        yield listener
    finally:
        await listener.close(0)


async def until(holds: Callable[[], bool]) -> None:
    """Return when it holds; the test's own time-out bounds it."""
    while True:
        if holds():
            return
        await asyncio.sleep(0.005)


async def connect(listener: Listener) -> Pair:
    return await asyncio.open_connection("127.0.0.1", listener.port)


async def test_a_deadline_is_each_reads_own_though_the_timer_is_shared() -> None:
    loop = asyncio.get_running_loop()
    waited: list[float] = []

    async def serve(stream: Stream) -> None:
        assert await stream.read(60) == b"a"  # sets the timer far off
        for timeout_s in (0.05, 0.2, 0.1):
            began = loop.time()
            with pytest.raises(TimeoutError):
                await stream.read(timeout_s)
            waited.append(loop.time() - began)
        stream.write(b"done")

    async with listening(serve) as listener:
        reader, writer = await connect(listener)
        writer.write(b"a")
        assert await reader.read() == b"done"
        writer.close()
    for seconds, timeout_s in zip(waited, (0.05, 0.2, 0.1), strict=True):
        assert timeout_s - 0.01 <= seconds < timeout_s + 0.5


async def test_octets_that_arrive_put_the_deadline_off() -> None:
    async def serve(stream: Stream) -> None:
        heard = b""
        try:
            while True:
                heard += await stream.read(0.3)
        except TimeoutError:
            stream.write(heard)

    async with listening(serve) as listener:
        reader, writer = await connect(listener)
        for _ in range(4):
            writer.write(b"x")
            await asyncio.sleep(0.15)
        assert await reader.read() == b"xxxx"
        writer.close()


async def test_a_session_that_crashes_closes_its_connection_and_is_told_of() -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, what: told.append(what))

    async def serve(stream: Stream) -> None:
        await stream.read(10)
        raise KeyError("a bug")

    async with listening(serve, limits=Limits(1)) as listener:
        reader, writer = await connect(listener)
        writer.write(b"x")
        assert await reader.read() == b""
        writer.close()
        assert listener.connections == 0
        assert [type(what["exception"]) for what in told] == [KeyError]
        _, again = await connect(listener)  # its place is free
        again.close()


async def test_a_peer_that_floods_is_made_to_wait() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    total = 0

    async def serve(stream: Stream) -> None:
        nonlocal total
        begun.set()
        await go_on.wait()
        assert stream._held < 1 << 20
        while octets := await stream.read(10):
            total += len(octets)

    async with listening(serve) as listener:
        _, writer = await connect(listener)
        await begun.wait()
        flood = 32 << 20
        writer.write(b"x" * flood)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await writer.drain()
        go_on.set()
        await writer.drain()
        writer.write_eof()
        await until(lambda: listener.connections == 0)
        assert total == flood


async def test_closing_gives_the_grace_and_then_the_chance_to_let_go() -> None:
    let_go = asyncio.Event()

    async def serve(stream: Stream) -> None:
        try:
            await stream.read(60)
        finally:
            await asyncio.sleep(0)
            let_go.set()

    listener = Listener(serve, logger("test"))
    await listener.listen("127.0.0.1", 0)
    reader, writer = await connect(listener)
    await until(lambda: listener.connections == 1)
    async with asyncio.timeout(0.5):
        await listener.close(0.4)
    assert let_go.is_set()
    assert await reader.read() == b""
    writer.close()
