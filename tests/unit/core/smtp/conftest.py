"""A peer in memory: octets in, replies out, over the real connection and conversation, with a door that remembers."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import structlog
import uvloop

from services.core.ends import Ends
from services.core.smtp import replies
from services.core.smtp.connection import Connection
from services.core.smtp.conversation import Conversation
from services.core.smtp.dialogue import converse
from services.core.smtp.hooks import Ask
from services.core.smtp.options import Options
from services.core.smtp.replies import Reply
from services.core.smtp.session import Recipient, Sender, Session, Transaction


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What touches sockets and TLS is tried on both loops, the rest on the one that serves."""
    both = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
    return both if item.path.name == "test_server.py" else {"uvloop": uvloop.new_event_loop}


class Door:
    """Takes everything, unless told otherwise: `answers[hook]` is a reply to give or an exception to raise."""

    def __init__(self) -> None:
        self.answers: dict[str, Reply | Exception] = {}
        self.bad_recipients: set[str] = set()
        self.messages: list[tuple[Transaction, bytes]] = []
        self.names: list[tuple[str, bool]] = []
        self.offered: tuple[str, ...] = ("PLAIN", "LOGIN")
        self.over_tls_only = False
        self.disconnected = 0
        self.in_data = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    def _answer(self, hook: str) -> Reply | None:
        answer = self.answers.get(hook)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def connect(self, session: Session) -> Reply | None:
        return self._answer("connect")

    async def helo(self, session: Session, name: str) -> Reply | None:
        self.names.append((name, session.esmtp))
        return self._answer("helo")

    def mechanisms(self, session: Session) -> tuple[str, ...]:
        return () if self.over_tls_only and session.tls is None else self.offered

    async def authenticate(self, session: Session, mechanism: str, initial: bytes | None, ask: Ask) -> Reply:
        if (answer := self._answer("authenticate")) is not None:
            return answer
        if mechanism == "LOGIN":
            password = [await ask(b"Username:"), await ask(b"Password:")][1]
        else:
            password = initial if initial is not None else await ask(b"")
        if not password.endswith(b"secret"):
            return replies.AUTH_FAILED
        session.login = "alice"
        return replies.AUTH_OK

    async def mail(self, session: Session, sender: Sender) -> Reply | None:
        assert session.transaction is not None
        assert session.transaction.sender is sender
        return self._answer("mail")

    async def rcpt(self, session: Session, recipient: Recipient) -> Reply | None:
        if recipient.address in self.bad_recipients:
            return replies.UNKNOWN_RECIPIENT
        return self._answer("rcpt")

    async def data(self, session: Session, message: bytes) -> Reply:
        self.in_data.set()
        await self.go_on.wait()
        answer = self._answer("data")
        if answer is None:
            assert session.transaction is not None
            self.messages.append((session.transaction, message))
        return answer or replies.KEPT.saying(f"kept {len(message)} octets")

    async def disconnect(self, session: Session) -> None:
        self.disconnected += 1


class Pipe(asyncio.Transport):
    """A transport whose other end is a list."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.protocol = protocol
        self.writes: list[bytes] = []
        self.reading = True
        self.closed = False
        self.written = asyncio.Event()

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))
        self.written.set()

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.written.set()
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = close

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Peer:
    """The other side of one conversation."""

    def __init__(self, door: Door, options: Options) -> None:
        loop = asyncio.get_running_loop()
        self.door, self.options = door, options
        self.connection = Connection(loop, options.timeouts, None)
        self.pipe = Pipe(self.connection)
        self.connection.connection_made(self.pipe)
        self.session = Session(Ends("192.0.2.1", 4711), Ends("192.0.2.25", 25))
        self._heard = b""
        self._read = 0
        conversation = Conversation(door, options, self.session, self.connection, structlog.get_logger())
        self.task = loop.create_task(self._hold(conversation))

    async def _hold(self, conversation: Conversation) -> None:
        try:
            await converse(conversation)
        finally:
            self.connection.close()

    def feed(self, octets: bytes) -> None:
        """Send without waiting."""
        self.connection.data_received(octets)

    async def hear(self, count: int = 1) -> list[str]:
        """The next `count` replies, each whole, lines joined by a newline."""
        heard: list[str] = []
        lines: list[str] = []
        while len(heard) < count:
            line, end, rest = self._heard.partition(b"\r\n")
            if not end:
                if self._read < len(self.pipe.writes):
                    self._heard += self.pipe.writes[self._read]
                    self._read += 1
                    continue
                assert not self.pipe.closed, f"closed after {heard}"
                self.pipe.written.clear()
                await self.pipe.written.wait()
                continue
            self._heard = rest
            lines.append(line.decode())
            if line[3:4] != b"-":
                heard.append("\n".join(lines))
                lines.clear()
        return heard

    async def say(self, octets: bytes, count: int = 1) -> str:
        """Send, and give the last of `count` replies."""
        self.feed(octets)
        return (await self.hear(count))[-1]

    async def begin(self) -> None:
        """Past the greeting and EHLO."""
        await self.hear()
        await self.say(b"EHLO client.example\r\n")

    async def enter(self, sender: bytes = b"alice@example.org") -> None:
        """Past EHLO, MAIL and one RCPT."""
        await self.begin()
        await self.say(b"MAIL FROM:<" + sender + b">\r\nRCPT TO:<bob@posta.test>\r\n", 2)

    async def ended(self) -> None:
        """The conversation is over and the transport closed."""
        await self.task
        assert self.pipe.closed


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.fixture
def meet(door: Door) -> Iterator[Callable[..., Peer]]:
    """Makes peers; keyword arguments are those of Options."""
    peers: list[Peer] = []

    def make(**options: Any) -> Peer:
        peer = Peer(door, Options("mx.posta.test", **options))
        peers.append(peer)
        return peer

    yield make
    for peer in peers:
        peer.task.cancel()


@pytest.fixture
async def peer(meet: Callable[..., Peer]) -> Peer:
    """A peer that has said EHLO."""
    peer = meet()
    await peer.begin()
    return peer
