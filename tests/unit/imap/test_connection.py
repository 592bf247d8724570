"""What a connection owes both sides: goodbyes, patience and its end, TLS that begins clean, limits that are said."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.store.engine import Store
from services.core.stream import Listener
from services.core.tls import ensure_dev_certificate, server_context
from services.imap.connection import MOST_FAULTS
from services.imap.server import Connections
from tests.transcripts.test_imap import PASSWORD, USER, account, responses, shared


@dataclass
class Door:
    connections: Connections
    listener: Listener
    ca: Path

    async def client(self) -> Client:
        client = Client(*await asyncio.open_connection("localhost", self.listener.port))
        assert (await client.response()).startswith("* OK [CAPABILITY ")
        return client

    async def login(self) -> Client:
        client = await self.client()
        assert (await client.ask("STARTTLS")).startswith("t OK")
        await client.writer.start_tls(ssl.create_default_context(cafile=str(self.ca)), server_hostname="localhost")
        assert (await client.ask(f"LOGIN {USER} {PASSWORD}")).startswith("t OK")
        return client


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._said: list[str] = []
        self._rest = b""

    async def response(self) -> str:
        """The next response; empty when the server has closed."""
        async with asyncio.timeout(10):
            while not self._said:
                octets = await self.reader.read(65536)
                if not octets:
                    return ""
                self._said, self._rest = responses(self._rest + octets)
        return self._said.pop(0)

    def send(self, text: str) -> None:
        self.writer.write(text.encode())

    async def ask(self, command: str) -> str:
        """The completion of a command."""
        self.send(f"t {command}\r\n")
        while not (line := await self.response()).startswith("t "):
            assert line, "the server has closed"
        return line


@asynccontextmanager
async def door(store: Store, folder: Path, *, login_s: float = 30, idle_s: float = 30) -> AsyncIterator[Door]:
    files = ensure_dev_certificate(folder, ("localhost",))
    context = server_context(files.cert, files.key)
    async with shared(store) as services:
        connections = Connections(
            replace(services, starttls=True),
            lambda: context,
            login_timeout_s=login_s,
            idle_timeout_s=idle_s,
        )
        listener = Listener(connections.serve, services.log)
        await listener.listen("127.0.0.1", 0)
        try:
            yield Door(connections, listener, files.ca)
        finally:
            await listener.close(0)


async def test_a_drain_says_goodbye_to_who_waits_and_to_who_idles(store: Store, tmp_path: Path) -> None:
    await account(store, 1)
    async with door(store, tmp_path) as there:
        waiting, idling = await there.login(), await there.login()
        await idling.ask("SELECT INBOX")
        idling.send("i IDLE\r\n")
        assert (await idling.response()).startswith("+ ")

        await asyncio.gather(there.connections.drain(1), there.listener.close(1))

        for client in (waiting, idling):
            assert (await client.response()).startswith("* BYE [UNAVAILABLE]")
            assert await client.response() == ""


async def test_a_drain_lets_the_running_command_be_answered(store: Store, tmp_path: Path) -> None:
    await account(store, 1)
    async with door(store, tmp_path) as there:
        client = await there.login()
        await client.ask("SELECT INBOX")
        client.send("a FETCH 1 BODY.PEEK[]\r\n")
        await asyncio.sleep(0)

        await asyncio.gather(there.connections.drain(2), there.listener.close(2))

        said = [await client.response() for _ in range(4)]
        # Either it was heard before the goodbye, and then answered whole, or the goodbye came first.
        if said[0].startswith("* 1 FETCH"):
            assert said[1].startswith("a OK")
            assert said[2].startswith("* BYE")
        else:
            assert said[0].startswith("* BYE")
        assert said[-1] == ""


async def test_plain_text_behind_starttls_counts_for_nothing(store: Store, tmp_path: Path) -> None:
    async with door(store, tmp_path) as there:
        client = await there.client()

        client.send("a STARTTLS\r\nb CAPABILITY\r\n")

        assert (await client.response()).startswith("a BAD")
        assert (await client.response()).startswith("* CAPABILITY")


async def test_a_stranger_is_not_waited_for_however_slowly_it_types(store: Store, tmp_path: Path) -> None:
    async with door(store, tmp_path, login_s=0.3) as there:
        client = await there.client()

        async def type_slowly() -> None:
            while not client.writer.is_closing():
                client.send("x")
                await asyncio.sleep(0.05)

        typing = asyncio.create_task(type_slowly())
        try:
            assert (await client.response()).startswith("* BYE")
            with suppress(ConnectionResetError):  # what it typed behind our back may end it so
                assert await client.response() == ""
        finally:
            typing.cancel()


async def test_who_idles_too_long_is_logged_out(store: Store, tmp_path: Path) -> None:
    await account(store, 0)
    async with door(store, tmp_path, idle_s=0.3) as there:
        client = await there.login()
        client.send("a IDLE\r\n")
        assert (await client.response()).startswith("+ ")
        assert (await client.response()).startswith("* BYE")
        assert await client.response() == ""


async def test_who_only_errs_is_sent_away(store: Store, tmp_path: Path) -> None:
    async with door(store, tmp_path) as there:
        client = await there.client()
        client.send("GET / HTTP/1.1\r\n" * (MOST_FAULTS + 1))
        for _ in range(MOST_FAULTS + 1):
            assert " BAD " in await client.response()
        assert (await client.response()).startswith("* BYE")
        assert await client.response() == ""


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"a NOOP " + b"x" * 70_000 + b"\r\n", "a BAD [TOOBIG]"),
        (b"a LOGIN {70000}\r\n", "a BAD [TOOBIG]"),
        (b"a LOGIN {1+}\r\n\0 x\r\n", "a BAD"),
        (b"\xff\xfe\r\n", "* BAD"),
        (b"a \0\r\n", "a BAD"),
    ],
)
async def test_a_limit_that_was_hit_is_named_and_the_next_command_is_served(
    said: bytes, answer: str, store: Store, tmp_path: Path
) -> None:
    async with door(store, tmp_path) as there:
        client = await there.client()
        client.writer.write(said)
        assert (await client.response()).startswith(answer)
        assert (await client.ask("NOOP")).startswith("t OK")


async def test_a_client_that_vanishes_in_the_middle_of_a_literal_leaves_nothing(store: Store, tmp_path: Path) -> None:
    await account(store, 0)
    async with door(store, tmp_path) as there:
        client = await there.login()
        client.send("a APPEND INBOX {100+}\r\nhalf of it")
        client.writer.transport.abort()
        again = await there.login()
        assert "(MESSAGES 0)" in await _status(again)


async def _status(client: Client) -> str:
    client.send("s STATUS INBOX (MESSAGES)\r\n")
    return await client.response()


_COMMANDS = ("NOOP", "CAPABILITY", 'ID ("name" {3+}\r\nabc)', "LOGOUT")


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 80), max_size=8))
def test_packets_make_no_difference(
    cuts: list[int], postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    said = "".join(f"a{n} {command}\r\n" for n, command in enumerate(_COMMANDS)).encode()

    async def talk() -> list[str]:
        store = Store(postgres_url)
        async with door(store, tmp_path_factory.getbasetemp() / "imap-tls") as there:
            client = await there.client()
            edges = [0, *sorted(min(cut, len(said)) for cut in cuts), len(said)]
            for start, end in pairwise(edges):
                client.writer.write(said[start:end])
                await client.writer.drain()
            heard = []
            while line := await client.response():
                heard.append(line)
        await store.close()
        return heard

    completions = [line.split()[:2] for line in asyncio.run(talk()) if line.startswith("a")]
    assert completions == [[f"a{n}", "OK"] for n in range(len(_COMMANDS))]
