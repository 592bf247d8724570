"""A world for the client: a DNS whose zones a test writes, servers that follow a script, certificates of a CA."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from random import Random
from typing import cast

import structlog

from services.core.dns import Dns
from services.core.telemetry import Metrics
from services.core.tls import DevCertificate, ensure_dev_certificate, server_context
from services.mxrouter.client import Client
from services.mxrouter.https import Https
from services.mxrouter.link import Patience
from services.mxrouter.mtasts import Policies
from services.mxrouter.opening import Opener
from services.mxrouter.pool import Pool
from services.mxrouter.resolve import Resolver
from services.mxrouter.security import Security, trusting
from services.mxrouter.tally import Tally

PATIENT = Patience(connect_s=10.0, command_s=20.0, data_s=20.0, block_s=20.0, message_s=20.0, quit_s=5.0)
# For peers that hang; whoever is well must manage within it on a busy machine too.
IMPATIENT = Patience(connect_s=1.0, command_s=1.0, data_s=1.0, block_s=1.0, message_s=1.0, quit_s=1.0)
USUAL = {
    "GREETING": "220 mx.remote.test ESMTP",
    "STARTTLS": "220 go",
    "MAIL": "250 ok",
    "RCPT": "250 ok",
    "DATA": "354 go",
    "MESSAGE": "250 2.0.0 taken",
    "RSET": "250 ok",
    "QUIT": "221 bye",
}
EHLO = "250-mx.remote.test\r\n250-PIPELINING\r\n250-STARTTLS\r\n250 DSN"


class Caller:
    """One connection as a scripted server has it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.lines: list[str] = []
        self.message = b""

    async def say(self, text: str) -> None:
        self.writer.write(text.encode() + b"\r\n")
        await self.writer.drain()

    async def line(self) -> str:
        octets = await self.reader.readline()
        if not octets:
            raise ConnectionResetError
        self.lines.append(octets.decode().rstrip("\r\n"))
        return self.lines[-1]

    async def hang(self) -> None:
        """Say nothing more, until the other side has had enough."""
        while await self.reader.read(65536):
            continue

    def stop_reading(self) -> None:
        cast(asyncio.Transport, self.writer.transport).pause_reading()

    async def take(
        self, ehlo: str = EHLO, tls: ssl.SSLContext | None = None, then: str | None = None, **answers: str | None
    ) -> None:
        """Be a server that answers by verb, as `answers` says or well. None hangs, "" hangs up.

        `then`: what it answers to everything once it has taken a message.
        """
        said: dict[str, str | None] = {**USUAL, "EHLO": ehlo, **answers}
        verb, accepted = "GREETING", False
        while True:
            answer = said.get(verb, "500 what?")
            if verb == "RCPT":
                accepted = accepted or (answer or "").startswith("250")
            if verb == "DATA" and answer == USUAL["DATA"] and not accepted:
                answer = "503 no recipients"
            if answer is None:
                return await self.hang()
            if answer == "":
                return None
            await self.say(answer)
            if verb == "QUIT" or answer.startswith("421"):
                return None
            if verb == "DATA" and answer.startswith("354"):
                lines = [await self.reader.readline()]
                while lines[-1] not in (b".\r\n", b""):
                    lines.append(await self.reader.readline())
                self.message, verb = b"".join(lines), "MESSAGE"
                continue
            if verb == "MESSAGE" and then is not None:
                said = dict.fromkeys(said, then)
            if verb == "STARTTLS" and answer.startswith("220"):
                assert tls is not None
                await self.writer.start_tls(tls)
            verb = (await self.line()).split(" ", 1)[0].split(":")[0].upper()


Script = Callable[[Caller], Awaitable[None]]


class World:
    """Domains, their DNS, and the servers that play their hosts: each on an address of its own, at one port."""

    def __init__(self, folder: Path, resolver_port: int) -> None:
        self.folder = folder
        self.dns = Dns((f"127.0.0.1:{resolver_port}",), 3.0)
        self.port = 0
        self.calls: list[tuple[str, Caller]] = []
        self.metrics = Metrics("mxrouter")
        self.tally = Tally(self.metrics)
        self.failures: list[tuple[str, str]] = []
        self.clients: list[Client] = []
        self._servers: list[asyncio.Server] = []

    def _failed(self, domain: str, result: str) -> None:
        self.failures.append((domain, result))

    def zone(self, origin: str, text: str) -> None:
        (self.folder / f"{origin}.zone").write_text("$TTL 0\n" + text)

    async def host(self, address: str, script: Script, tls: ssl.SSLContext | None = None) -> None:
        """A server at `address` that runs `script` for each connection; `tls`: from its start."""

        async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            caller = Caller(reader, writer)
            self.calls.append((address, caller))
            try:
                await script(caller)
            except (OSError, asyncio.IncompleteReadError, ssl.SSLError):
                return
            finally:
                writer.close()

        server = await asyncio.start_server(serve_one, address, self.port, limit=1 << 26, ssl=tls)
        self.port = self.port or server.sockets[0].getsockname()[1]
        self.keep(server)

    def keep(self, server: asyncio.Server) -> None:
        """Close it with the world."""
        self._servers.append(server)

    def certificate(self, *names: str) -> tuple[DevCertificate, ssl.SSLContext]:
        files = ensure_dev_certificate(self.folder / ("tls-" + "-".join(names)), names)
        return files, server_context(files.cert, files.key)

    def client(
        self,
        *,
        ca: Path | None = None,
        sts_port: int = 0,
        idle_s: float = 5.0,
        patience: Patience = PATIENT,
        messages: int = 100,
        search_s: float = 600.0,
        ourselves: Sequence[str] = ("mx.posta.test",),
    ) -> Client:
        resolver = Resolver(self.dns, ourselves, random=Random(4))
        trust = trusting(ca)
        https = Https(resolver, trust, timeout_s=2.0, private=True)
        policies = Policies(self.dns, https, self._failed, port=sts_port) if sts_port else None
        security = Security(self.dns, policies, trust, self.tally)
        client = Client(
            resolver,
            security,
            Opener("mx.posta.test", security, patience),
            Pool(idle_s, messages),
            structlog.get_logger(),
            Metrics("mxrouter"),
            port=self.port,
            search_s=search_s,
        )
        self.clients.append(client)
        return client

    @property
    def called(self) -> list[str]:
        """The addresses that were connected to, in order."""
        return [address for address, _ in self.calls]

    @property
    def results(self) -> list[tuple[str, str]]:
        return sorted((session.policy, session.result) for session in self.tally.taken())

    async def close(self) -> None:
        for client in self.clients:
            await client.close()
        for server in self._servers:
            server.close()
