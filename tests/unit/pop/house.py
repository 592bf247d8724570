"""A maildrop on real Postgres, the POP service before it in this process, and a wire to Postgres that can be cut."""

from __future__ import annotations

import asyncio
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from google.protobuf.message import Message

from services.core.auth import enroll
from services.core.auth.authenticator import Authenticator
from services.core.auth.passwords import Workers
from services.core.crowd import Limits
from services.core.ids import AccountId, Fid, Uid
from services.core.settings import Settings
from services.core.store import accounts, blobs, messages
from services.core.store.content import prepare
from services.core.store.engine import Store
from services.core.store.locks import AccountLocks
from services.core.store.messages import Placed, Placement
from services.core.stream import Listener
from services.core.telemetry import logger
from services.core.tls import ensure_dev_certificate, server_context
from services.pop.server import Connections
from services.pop.session import Shared
from services.pop.wire import err

M = TypeVar("M", bound=Message)

NAME, PASSWORD = "alice@posta.test", "correct horse"
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
WORKERS = Workers(2)


@dataclass
class Hints:
    """A bus that carries hints within this process, at once, and remembers them."""

    handlers: dict[str, list[Callable[[Message], object]]] = field(default_factory=lambda: defaultdict(list))
    sent: list[tuple[str, Message]] = field(default_factory=list)

    async def subscribe_hint(
        self, subject: str, cls: type[M], handler: Callable[[M], Awaitable[None] | None]
    ) -> object:
        self.handlers[subject].append(lambda message: handler(message) if isinstance(message, cls) else None)
        return None

    def publish_hint(self, subject: str, message: Message) -> bool:
        self.sent.append((subject, message))
        for handler in self.handlers[subject]:
            handler(message)
        return True


async def make_account(store: Store, name: str = NAME) -> AccountId:
    async with store.begin("test") as conn:
        if not await accounts.list_domains(conn):
            await accounts.create_domain(conn, "posta.test")
        account_id = await accounts.create(conn, name)
        await enroll.set_password(conn, account_id, PASSWORD)
    return account_id


async def put(store: Store, account: AccountId, contents: Sequence[bytes]) -> list[Placed]:
    """The messages, in the INBOX."""
    ids = await blobs.stage(store, contents)
    placements = [
        Placement(await prepare(blob, b"", octets), "inbox", NOW) for blob, octets in zip(ids, contents, strict=True)
    ]
    return await messages.append(store, account, placements)


async def expunge(store: Store, account: AccountId, placed: Sequence[Placed]) -> None:
    """What an IMAP session does."""
    async with store.begin("test") as conn:
        await messages.expunge(conn, account, Fid(placed[0].fid), [Uid(each.uid) for each in placed])


class Relay:
    """A TCP way to Postgres that a test can cut and mend."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    @property
    def url(self) -> str:
        user = f"{self._target.netloc.rpartition('@')[0]}@" if "@" in self._target.netloc else ""
        return f"postgresql://{user}127.0.0.1:{self.port}{self._target.path}"

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self._target.hostname, self._target.port or 5432)
        pair = {writer, far_writer}
        self._writers |= pair
        try:
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        finally:
            self._writers -= pair


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while octets := await reader.read(65536):
            writer.write(octets)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@dataclass
class House:
    """The POP service in this process."""

    shared: Shared
    connections: Connections
    listener: Listener
    account: AccountId
    hints: Hints
    store: Store  # the test's own way to Postgres, which is never cut
    ca: Path
    implicit: Listener | None = None

    def client_tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca))

    async def connect(self) -> Client:
        """A client that has read the greeting."""
        client = Client(*await asyncio.open_connection("127.0.0.1", self.listener.port), self.client_tls())
        assert await client.line() == "+OK Posta ready"
        return client

    async def login(self) -> Client:
        """A client in TRANSACTION, under TLS."""
        client = await self.connect()
        await client.ask("STLS")
        await client.start_tls()
        await client.ask(f"USER {NAME}")
        assert (await client.ask(f"PASS {PASSWORD}")).startswith("+OK")
        return client


@dataclass
class Client:
    """A POP client that a test can follow line by line."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    tls: ssl.SSLContext

    def send(self, octets: bytes) -> None:
        self.writer.write(octets)

    async def line(self) -> str:
        """One line; empty when the server has closed."""
        async with asyncio.timeout(10):
            try:
                return (await self.reader.readline()).decode().removesuffix("\r\n")
            except ConnectionError:
                return ""

    async def ask(self, command: str) -> str:
        self.send(f"{command}\r\n".encode())
        return await self.line()

    async def body(self, command: str) -> bytes:
        """A multi-line reply's octets, dots unstuffed."""
        first = await self.ask(command)
        assert first.startswith("+OK"), first
        octets = b""
        while (line := await self.reader.readline()) != b".\r\n":
            octets += line.removeprefix(b".")
        return octets

    async def start_tls(self) -> None:
        await self.writer.start_tls(self.tls, server_hostname="localhost")

    async def vanish(self) -> None:
        self.writer.transport.abort()


@asynccontextmanager
async def house(
    store: Store,
    folder: Path,
    *,
    url: str,
    tls: bool = True,
    idle_timeout_s: float = 30,
    max_connections: int = 0,
    max_per_ip: int = 0,
    locks: AccountLocks | None = None,
    served_by: Store | None = None,
    account: AccountId | None = None,
    settings: Settings | None = None,
) -> AsyncIterator[House]:
    """`url`: Postgres as the locks reach it; `served_by`: the store as the service reaches it."""
    account = await make_account(store) if account is None else account
    certificate = ensure_dev_certificate(folder / "tls", ("localhost", "127.0.0.1"))
    context = server_context(certificate.cert, certificate.key)
    hints = Hints()
    authenticator = Authenticator(served_by or store, hints, settings or Settings(), workers=WORKERS)
    await authenticator.start()
    held = locks or AccountLocks(url)
    shared = Shared(served_by or store, hints, held, authenticator)
    connections = Connections(
        shared,
        (lambda: context) if tls else None,
        logger("test"),
        login_timeout_s=idle_timeout_s,
        idle_timeout_s=idle_timeout_s,
    )
    listener = Listener(
        connections.serve,
        logger("test"),
        max_connections=max_connections,
        limits=Limits(max_per_ip),
        refusal=err("Too many connections", "SYS/TEMP"),
    )
    await listener.listen("127.0.0.1", 0)
    implicit = Listener(connections.serve, logger("test"), tls=lambda: context, implicit_tls=True)
    await implicit.listen("127.0.0.1", 0)
    try:
        yield House(shared, connections, listener, account, hints, store, certificate.ca, implicit)
    finally:
        await listener.close(0)
        await implicit.close(0)
        await held.close()
