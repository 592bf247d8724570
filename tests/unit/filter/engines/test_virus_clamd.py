"""clamd by its wire protocol: every way a daemon may answer, or not."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from services.core.endpoint import Endpoint
from services.filter.engines.virus_clamd import Clamd
from services.filter.servers import NoServer
from tests.unit.filter.letters import EICAR, PLAIN, examined

Behaviour = Callable[["FakeClamd", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class FakeClamd:
    """Speaks INSTREAM in a session as clamd does, then behaves as it is told, for every message of it."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.received: list[bytes] = []
        self.sessions: list[asyncio.StreamWriter] = []
        self.said: Counter[asyncio.StreamWriter] = Counter()
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
        self.sessions.append(writer)
        try:
            assert await reader.readexactly(11) == b"zIDSESSION\0"
            while not writer.is_closing():
                await self.behaviour(self, reader, writer)
        except (OSError, EOFError):
            return
        finally:
            writer.close()

    def say(self, writer: asyncio.StreamWriter, text: bytes) -> None:
        """Answer the next question of this session."""
        self.said[writer] += 1
        writer.write(b"%d: %b\0" % (self.said[writer], text))


async def honest(fake: FakeClamd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    found = EICAR in await fake.stream(reader)
    fake.say(writer, b"stream: Eicar-Signature FOUND" if found else b"stream: OK")


async def small(fake: FakeClamd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await fake.stream(reader, limit=300_000)
    fake.say(writer, b"INSTREAM size limit exceeded. ERROR")
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
    fake.say(writer, b"\xff\xfe HTTP/1.1 400\r\n")


async def endless(fake: FakeClamd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"x" * 1_000_000)
    await reader.read()


async def cut(fake: FakeClamd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(20)
    writer.transport.abort()


async def silent(fake: FakeClamd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await fake.stream(reader)
    writer.close()


async def late(fake: FakeClamd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers the question before."""
    await fake.stream(reader)
    writer.write(b"0: stream: OK\0")


async def terse(fake: FakeClamd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hangs up after each answer."""
    await honest(fake, reader, writer)
    await writer.drain()
    writer.close()


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
    assert len(fake.sessions) == 1


async def test_messages_at_one_time_have_a_session_each(start: Start) -> None:
    fake = await start(hung)
    clamd = Clamd([fake.where], 0.5)
    both = asyncio.gather(said(clamd, PLAIN), said(clamd, PLAIN), return_exceptions=True)
    assert all(isinstance(each, NoServer) for each in await both)
    assert len(fake.sessions) == 2


async def test_a_session_that_failed_is_not_used_again(start: Start) -> None:
    fake = await start(late)
    clamd = Clamd([fake.where], 5)
    for _ in range(2):
        with pytest.raises(NoServer):
            await said(clamd, PLAIN)
    assert len(fake.sessions) == 2


async def test_a_daemon_that_was_started_anew_meanwhile(start: Start) -> None:
    fake = await start(honest)
    clamd = Clamd([fake.where], 5)
    assert await said(clamd, PLAIN) == []
    fake.sessions[0].transport.abort()
    assert await said(clamd, PLAIN + EICAR) == [("virus", "Eicar-Signature")]
    assert len(fake.sessions) == 2


async def test_too_big_for_clamd_is_for_ever(start: Start) -> None:
    clamd = Clamd([(await start(small)).where], 5)
    assert await said(clamd, PLAIN + bytes(20_000_000)) == [("policy", "TOO_BIG_TO_EXAMINE")]


@pytest.mark.parametrize("behaviour", [garbled, endless, cut, silent, late])
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


async def test_a_daemon_that_hangs_up_after_each_answer(start: Start) -> None:
    fake = await start(terse)
    clamd = Clamd([fake.where], 5)
    for _ in range(5):
        assert await said(clamd, PLAIN) == []
    assert len(fake.received) == 5
