"""The way out as the service opens it, against servers that were not written for it: our own door, and aiosmtpd."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import structlog
from aiosmtpd.smtp import SMTP

from services.core.dns import Dns
from services.core.service import Service
from services.core.settings import Relay, Settings
from services.core.smtp import replies
from services.core.smtp.hooks import Ask
from services.core.smtp.options import Options
from services.core.smtp.replies import Reply
from services.core.smtp.server import serve
from services.core.smtp.session import Recipient, Sender, Session
from services.core.store.engine import Store
from services.mxrouter.carriage import Addressee, Fate, Letter, Route
from services.mxrouter.outward import open_carrier, open_https
from tests.unit.mxrouter.world import World

MESSAGE = "Subject: ü\r\n\r\n.\r\n..\r\nsmörgås\r\n".encode() + (b"x" * 70 + b"\r\n") * 3000
ADDRESSEES = (Addressee("carol@remote.test", "SUCCESS", "rfc822;c+d=e@remote.test"), Addressee("nobody@remote.test"))


class Door:
    """Takes mail for everybody but nobody."""

    def __init__(self) -> None:
        self.taken: list[tuple[Sender, list[Recipient], bytes]] = []
        self.connected = 0

    async def connect(self, session: Session) -> Reply | None:
        self.connected += 1
        return None

    async def helo(self, session: Session, name: str) -> Reply | None:
        return None

    def mechanisms(self, session: Session) -> tuple[str, ...]:
        return ()

    async def authenticate(self, session: Session, mechanism: str, initial: bytes | None, ask: Ask) -> Reply:
        return replies.AUTH_NOT_OFFERED

    async def mail(self, session: Session, sender: Sender) -> Reply | None:
        return None

    async def rcpt(self, session: Session, recipient: Recipient) -> Reply | None:
        return replies.UNKNOWN_RECIPIENT if recipient.address.startswith("nobody") else None

    async def data(self, session: Session, message: bytes) -> Reply:
        assert session.transaction is not None
        self.taken.append((session.transaction.sender, list(session.transaction.recipients), message))
        return replies.KEPT

    async def disconnect(self, session: Session) -> None:
        return None


Open = Callable[..., Any]


@pytest.fixture
async def opened(world: World, store: Store) -> AsyncIterator[Open]:
    services: list[Service] = []

    def open_(**relay: Any) -> Any:
        settings = Settings(hostname="mx.posta.test", relay=Relay(**relay))
        service = Service("mxrouter", settings, structlog.get_logger())
        services.append(service)
        return open_carrier(service, store, world.dns, open_https(service, world.dns))

    yield open_
    for service in services:
        await service._wind_down()


@pytest.mark.parametrize("discarded", ["", "chunking", "chunking PIPELINING", "chunking pipelining 8bitmime size"])
async def test_our_own_door_takes_what_our_own_relay_brings(world: World, opened: Open, discarded: str) -> None:
    door = Door()
    files, tls = world.certificate("mx.remote.test")
    listening = socket.create_server(("127.0.0.2", 0))
    port = listening.getsockname()[1]
    server = await serve(
        door, Options("mx.remote.test"), log=structlog.get_logger(), sockets=[listening], tls=lambda: tls
    )
    world.zone("remote.test", "@ IN MX 1 mx\nmx IN A 127.0.0.2\n")
    carrier = opened(port=port, ca=files.ca, discard_ehlo_keywords=discarded)

    for _ in range(3):
        what = Letter("0", "jörg@posta.test", ADDRESSEES, MESSAGE, smtputf8=True, ret="HDRS", envid="a b+c")
        sent, refused = await carrier.carry(Route("remote.test"), what)
        assert (sent.fate, sent.code, sent.relayed_dsn) == (Fate.SENT, 250, True)
        assert (refused.fate, refused.code, refused.enhanced) == (Fate.FAILED, 550, "5.1.1")
    await server.close(1.0)

    assert door.connected == 1
    assert len(door.taken) == 3
    for sender, recipients, message in door.taken:
        assert message == MESSAGE
        assert (sender.address, sender.ret, sender.envid, sender.smtputf8) == ("jörg@posta.test", "HDRS", "a b+c", True)
        (recipient,) = recipients
        assert (recipient.address, recipient.notify, recipient.orcpt) == (
            "carol@remote.test",
            frozenset({"SUCCESS"}),
            "rfc822;c+d=e@remote.test",
        )


class Taker:
    """A handler of aiosmtpd."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, list[str], bytes]] = []

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        if address.startswith("nobody"):
            return "550 5.1.1 who?"
        envelope.rcpt_tos.append(address)
        return "250 ok"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.taken.append((envelope.mail_from, envelope.rcpt_tos, envelope.original_content))
        return "250 2.0.0 taken"


async def test_aiosmtpd_takes_it_too(world: World, opened: Open) -> None:
    taker = Taker()
    _, tls = world.certificate("other.test")
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(taker, tls_context=tls, loop=loop), "127.0.0.2", 0)
    world.keep(server)
    world.zone("remote.test", "@ IN MX 1 mx\nmx IN A 127.0.0.2\n")
    carrier = opened(port=server.sockets[0].getsockname()[1])

    for _ in range(2):
        what = Letter("0", "alice@posta.test", ADDRESSEES, MESSAGE)
        sent, refused = await carrier.carry(Route("remote.test"), what)
        assert (sent.fate, sent.enhanced, sent.text, sent.relayed_dsn) == (Fate.SENT, "2.0.0", "taken", False)
        assert (refused.fate, refused.enhanced) == (Fate.FAILED, "5.1.1")

    assert taker.taken == [("alice@posta.test", ["carol@remote.test"], MESSAGE)] * 2


def test_a_ca_file_that_is_none_is_said_at_start(tmp_path: Any) -> None:
    settings = Settings(relay=Relay(ca=tmp_path / "missing.pem"))
    service = Service("mxrouter", settings, structlog.get_logger())

    with pytest.raises(OSError):
        open_https(service, Dns(("127.0.0.1",)))
