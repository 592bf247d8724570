"""clamd by its wire protocol: every way a daemon may answer, or not."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from services.core.endpoint import Endpoint
from services.filter.engines.virus_clamd import Clamd
from services.filter.servers import NoServer
from tests.unit.filter.letters import EICAR, PLAIN, examined

Behaviour = Callable[["FakeClamd", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class FakeClamd:
    """Speaks INSTREAM as clamd does, then behaves as it is told."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.received: list[bytes] = []
        self.where = Endpoint("", 0)
        self._server: asyncio.Server | None = None

    async def start(self, path: str = "") -> "FakeClamd":
        if path:
            self._server = await asyncio.start_unix_server(self._serve, path)
            self.where = Endpoint("", 0, path)
        else:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.where = Endpoint("127.0.0.1", self._server.sockets[0].getsockname()[1])
        return self

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def stream(self, reader: asyncio.StreamReader, limit: int = 1 << 30) -> bytes:
        assert await reader.readexactly(10) == b"zINSTREAM\0"
        octets = b""
        while (size := int.from_bytes(await reader.readexactly(4), "big")) and len(octets) + size <= limit:
            octets += await reader.readexactly(size)
        self.received.append(octets)
        return octets

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self.behaviour(self, reader, writer)
        except (OSError, EOFError):
            return
        finally:
            writer.close()


async def honest(fake: FakeClamd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    found = EICAR in await fake.stream(reader)
    writer.write(b"stream: Eicar-Signature FOUND\0" if found else b"stream: OK\0")


async def small(fake: FakeClamd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await fake.stream(reader, limit=300_000)
    writer.write(b"INSTREAM size limit exceeded. ERROR\0")
    await writer.drain()
    while await reader.read(65536):  # hanging up now would take the answer with it
        pass


async def hung(fake: FakeClamd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await fake.stream(reader)
    await reader.read()


async def deaf(fake: FakeClamd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def garbled(fake: FakeClamd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await fake.stream(reader)
    writer.write(b"\xff\xfe HTTP/1.1 400\r\n\0")


async def endless(fake: FakeClamd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"x" * 1_000_000)
    await reader.read()


async def cut(fake: FakeClamd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(20)
    writer.transport.abort()


async def silent(fake: FakeClamd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await fake.stream(reader)


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Awaitable[FakeClamd]]]:
    fakes: list[FakeClamd] = []

    async def start(behaviour: Behaviour, path: str = "") -> FakeClamd:
        fakes.append(await FakeClamd(behaviour).start(path))
        return fakes[-1]

    yield start
    for fake in fakes:
        await fake.stop()


Start = Callable[..., Awaitable[FakeClamd]]


async def said(clamd: Clamd, octets: bytes) -> list[tuple[str, str]]:
    return [(finding.kind, finding.symbol) for finding in await clamd.examine(examined(octets))]


@pytest.mark.parametrize("socket", ["tcp", "unix"])
async def test_clean_and_found(start: Start, tmp_path: Path, socket: str) -> None:
    fake = await start(honest, str(tmp_path / "clamd.sock") if socket == "unix" else "")
    clamd = Clamd([fake.where], 5)
    large = PLAIN + b"line\r\n" * 100_000
    assert await said(clamd, PLAIN) == []
    assert await said(clamd, PLAIN + EICAR) == [("virus", "Eicar-Signature")]
    assert await said(clamd, large) == []
    assert fake.received == [PLAIN, PLAIN + EICAR, large]


async def test_too_big_for_clamd_is_for_ever(start: Start) -> None:
    clamd = Clamd([(await start(small)).where], 5)
    assert await said(clamd, PLAIN + bytes(20_000_000)) == [("policy", "TOO_BIG_TO_EXAMINE")]


@pytest.mark.parametrize("behaviour", [garbled, endless, cut, silent])
async def test_an_answer_that_is_none(start: Start, behaviour: Behaviour) -> None:
    with pytest.raises(NoServer, match=r"127\.0\.0\.1"):
        await said(Clamd([(await start(behaviour)).where], 5), PLAIN)


@pytest.mark.parametrize("behaviour", [hung, deaf])
async def test_a_daemon_that_hangs_has_its_share_of_the_time(start: Start, behaviour: Behaviour) -> None:
    first, second = await start(behaviour), await start(honest)
    clamd = Clamd([first.where, second.where], 0.4)
    assert await said(clamd, PLAIN + EICAR) == [("virus", "Eicar-Signature")]
    with pytest.raises(NoServer, match="no answer in time"):
        await said(Clamd([first.where], 0.05), PLAIN)


async def test_a_dead_daemon_is_asked_last(start: Start, tmp_path: Path) -> None:
    living = await start(honest)
    dead = Endpoint("", 0, str(tmp_path / "nobody"))
    clamd = Clamd([dead, living.where], 5)
    for _ in range(6):
        assert await said(clamd, PLAIN) == []
    assert len(living.received) == 6
    assert clamd.servers.order(asyncio.get_running_loop().time())[0] == living.where
    with pytest.raises(NoServer, match="nobody"):
        await said(Clamd([dead], 5), PLAIN)


async def test_the_healthy_take_turns(start: Start) -> None:
    fakes = [await start(honest), await start(honest)]
    clamd = Clamd([fake.where for fake in fakes], 5)
    for _ in range(6):
        await said(clamd, PLAIN)
    assert [len(fake.received) for fake in fakes] == [3, 3]
