"""Over TCP, on uvloop and on asyncio's own loop: TLS both ways, certificates renewed live, PROXY headers, drain."""

import asyncio
import contextlib
import smtplib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import structlog

from services.core.proxy import FromProxies
from services.core.smtp.options import Options, Timeouts
from services.core.smtp.server import Server, serve
from services.core.tls import ensure_dev_certificate, server_context

Run = Callable[..., contextlib.AbstractAsyncContextManager[Server]]
LOCAL = ip_network("127.0.0.0/8")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return ensure_dev_certificate(tmp_path_factory.mktemp("tls"), ["localhost", "127.0.0.1"])


@pytest.fixture
def client_tls(certificate: Any) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate.ca))


@pytest.fixture
def run(door: Any, certificate: Any) -> Run:
    @contextlib.asynccontextmanager
    async def start(options: Options | None = None, **more: Any) -> AsyncIterator[Server]:
        context = server_context(certificate.cert, certificate.key)
        more.setdefault("tls", lambda: context)
        server = await serve(door, options or Options("mx.posta.test"), log=structlog.get_logger(), **more)
        try:
            yield server
        finally:
            await server.close(0)

    return start


class Client:
    """A peer over TCP."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, server: Server, tls: ssl.SSLContext | None = None, first: bytes = b"") -> "Client":
        host = "localhost" if tls else None
        reader, writer = await asyncio.open_connection(*server.addresses[0], ssl=tls, server_hostname=host)
        client = cls(reader, writer)
        writer.write(first)
        return client

    async def hear(self) -> str:
        lines: list[str] = []
        while not lines or lines[-1][3:4] == "-":
            lines.append((await self.reader.readuntil(b"\r\n")).decode().strip())
        return "\n".join(lines)

    async def say(self, line: bytes) -> str:
        self.writer.write(line + b"\r\n")
        return await self.hear()

    async def closed(self) -> bool:
        with contextlib.suppress(ConnectionResetError):
            return await self.reader.read() == b""
        return True


async def test_starttls_begins_the_session_anew(run: Run, door: Any, client_tls: ssl.SSLContext) -> None:
    door.over_tls_only = True
    async with run(Options("mx.posta.test", require_tls=True)) as server:
        client = await Client.connect(server)
        await client.hear()
        ehlo = await client.say(b"EHLO client.example")
        assert "STARTTLS" in ehlo
        assert "AUTH" not in ehlo
        assert (await client.say(b"AUTH PLAIN")).startswith("538 5.7.11")
        assert (await client.say(b"STARTTLS now")).startswith("501")
        assert (await client.say(b"STARTTLS")).startswith("220 2.0.0")
        await client.writer.start_tls(client_tls, server_hostname="localhost")
        assert (await client.say(b"MAIL FROM:<>")).startswith("503 5.5.1 Send EHLO first")
        ehlo = await client.say(b"EHLO client.example")
        assert "STARTTLS" not in ehlo
        assert "AUTH PLAIN LOGIN" in ehlo
        assert (await client.say(b"STARTTLS")).startswith("503 5.5.1")
        await client.say(b"MAIL FROM:<>\r\nRCPT TO:<bob@posta.test>\r\nDATA")
        await client.hear()
        await client.hear()
        assert (await client.say(b"over TLS\r\n.")).startswith("250")
        assert (await client.say(b"QUIT")).startswith("221")
        assert await client.closed()
    assert door.messages[0][1] == b"over TLS\r\n"


async def test_commands_hidden_behind_starttls_are_thrown_away(run: Run, door: Any) -> None:
    async with run() as server:
        client = await Client.connect(server)
        await client.hear()
        await client.say(b"EHLO client.example")
        assert (await client.say(b"STARTTLS\r\nMAIL FROM:<evil@example.org>")).startswith("503 5.5.1")
        assert (await client.say(b"RCPT TO:<bob@posta.test>")).startswith("503 5.5.1 Send MAIL first")


async def test_plaintext_after_the_220_is_no_command(run: Run) -> None:
    async with run() as server:
        client = await Client.connect(server)
        await client.hear()
        await client.say(b"EHLO client.example")
        assert (await client.say(b"STARTTLS")).startswith("220")
        client.writer.write(b"NOOP\r\n" * 10)
        assert b"250" not in await client.reader.read()


async def test_implicit_tls_serves_the_certificate_of_the_moment(
    run: Run, certificate: Any, client_tls: ssl.SSLContext, tmp_path: Path
) -> None:
    other = ensure_dev_certificate(tmp_path, ["localhost"])
    contexts = [server_context(each.cert, each.key) for each in (certificate, other)]
    async with run(tls=lambda: contexts[0], implicit_tls=True) as server:
        client = await Client.connect(server, client_tls)
        assert (await client.hear()).startswith("220")
        assert "STARTTLS" not in await client.say(b"EHLO client.example")
        contexts.reverse()
        with pytest.raises(ssl.SSLCertVerificationError):
            await Client.connect(server, client_tls)
        renewed = await Client.connect(server, ssl.create_default_context(cafile=str(other.ca)))
        assert (await renewed.hear()).startswith("220")


async def test_a_client_of_the_standard_library(run: Run, door: Any, client_tls: ssl.SSLContext) -> None:
    def send(port: int) -> dict[str, tuple[int, bytes]]:
        with smtplib.SMTP("localhost", port, timeout=5) as client:
            client.starttls(context=client_tls)
            client.login("alice", "secret")
            return client.sendmail(
                "alice@posta.test",
                ["bob@posta.test", "nobody@posta.test"],
                "Subject: x\n\n.dot\n..two\n",
                mail_options=["BODY=8BITMIME"],
            )

    door.bad_recipients = {"nobody@posta.test"}
    async with run() as server:
        refused = await asyncio.to_thread(send, server.addresses[0].port)
    assert refused == {"nobody@posta.test": (550, b"5.1.1 No such mailbox here")}
    assert door.messages[0][1] == b"Subject: x\r\n\r\n.dot\r\n..two\r\n"


async def test_drain_over_tcp(run: Run, door: Any) -> None:
    async with run() as server:
        idle, busy = await Client.connect(server), await Client.connect(server)
        await idle.hear()
        await busy.hear()
        await busy.say(b"EHLO client.example")
        for line in (b"MAIL FROM:<>", b"RCPT TO:<bob@posta.test>", b"DATA"):
            await busy.say(line)
        door.go_on.clear()
        busy.writer.write(b"x\r\n.\r\n")
        await door.in_data.wait()
        closing = asyncio.create_task(server.close(30))
        assert (await idle.hear()).startswith("421 4.3.2")
        assert await idle.closed()
        with pytest.raises(ConnectionRefusedError):
            await Client.connect(server)
        assert not closing.done()
        door.go_on.set()
        assert (await busy.hear()).startswith("250")
        assert (await busy.hear()).startswith("421 4.3.2")
        await closing
    assert len(door.messages) == 1
    assert door.disconnected == 2


async def test_messages_count_from_their_beginning_to_their_reply(run: Run, door: Any) -> None:
    async with run() as server:
        by_data, by_chunks = await Client.connect(server), await Client.connect(server)
        for client in (by_data, by_chunks):
            await client.hear()
            await client.say(b"EHLO client.example")
            for line in (b"MAIL FROM:<>", b"RCPT TO:<bob@posta.test>"):
                await client.say(line)
        assert server.messages == 0
        assert (await by_data.say(b"DATA")).startswith("354")
        assert server.messages == 1
        assert (await by_chunks.say(b"BDAT 3\r\nx")).startswith("250")
        assert server.messages == 2  # the rest of it may be long in coming, and what has come is kept
        assert (await by_chunks.say(b"RSET")).startswith("250")
        assert server.messages == 1
        door.go_on.clear()
        by_data.writer.write(b"x\r\n.\r\n")
        await door.in_data.wait()
        assert server.messages == 1  # being decided about
        door.go_on.set()
        assert (await by_data.hear()).startswith("250")
        assert server.messages == 0
        for line in (b"MAIL FROM:<>", b"RCPT TO:<bob@posta.test>", b"DATA"):
            await by_data.say(line)
        assert server.messages == 1
        by_data.writer.close()
        await by_chunks.say(b"QUIT")
    assert server.messages == 0
    assert len(door.messages) == 1


async def test_the_grace_has_an_end(run: Run, door: Any) -> None:
    async with run() as server:
        busy = await Client.connect(server)
        await busy.hear()
        await busy.say(b"EHLO client.example")
        for line in (b"MAIL FROM:<>", b"RCPT TO:<bob@posta.test>", b"DATA"):
            await busy.say(line)
        door.go_on.clear()
        busy.writer.write(b"x\r\n.\r\n")
        await door.in_data.wait()
        await server.close(0.01)
        assert await busy.closed()
        assert server.connections == 0
    assert door.messages == []


async def test_one_connection_too_many_is_told_so(run: Run) -> None:
    async with run(Options("mx.posta.test", max_connections=1)) as server:
        first = await Client.connect(server)
        await first.hear()
        assert (await (await Client.connect(server)).hear()).startswith("421 4.7.0")
        await first.say(b"QUIT")
        assert await first.closed()
        assert (await (await Client.connect(server)).hear()).startswith("220")


async def test_a_handshake_that_never_comes_is_given_up(run: Run) -> None:
    options = Options("mx.posta.test", timeouts=Timeouts(handshake_s=0.05))
    async with run(options, implicit_tls=True) as server:
        assert await (await Client.connect(server)).closed()


_V2 = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11" + struct.pack("!H4s4sHH", 12, b"\xc0\0\2\7", b"\xc0\0\2\x19", 4711, 25)


@pytest.mark.parametrize("header", [b"PROXY TCP4 192.0.2.7 192.0.2.25 4711 25\r\n", _V2])
@pytest.mark.parametrize("implicit", [False, True])
async def test_a_proxy_says_who_the_peer_is(
    run: Run, door: Any, client_tls: ssl.SSLContext, header: bytes, implicit: bool
) -> None:
    peers: list[Any] = []
    connect = door.connect

    async def remember(session: Any) -> Any:
        peers.append((session.peer, session.local, session.tls is not None))
        return await connect(session)

    door.connect = remember
    async with run(proxy=FromProxies([LOCAL]), implicit_tls=implicit) as server:
        client = await Client.connect(server, first=header)
        if implicit:
            await client.writer.start_tls(client_tls, server_hostname="localhost")
        assert (await client.hear()).startswith("220")
    assert peers == [(("192.0.2.7", 4711), ("192.0.2.25", 25), implicit)]


async def test_a_proxy_that_says_nothing_is_not_served(run: Run) -> None:
    async with run(proxy=FromProxies([LOCAL])) as server:
        client = await Client.connect(server, first=b"EHLO client.example\r\n")
        assert await client.closed()


async def test_who_is_no_proxy_needs_no_header(run: Run) -> None:
    async with run(proxy=FromProxies([ip_network("192.0.2.0/24")])) as server:
        assert (await (await Client.connect(server)).hear()).startswith("220")


async def test_given_sockets_are_listened_on(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with run(sockets=[listening]) as server:
            assert server.addresses == (("127.0.0.1", listening.getsockname()[1]),)
            assert (await (await Client.connect(server)).hear()).startswith("220")
