"""The far end of the fault run: another mail server, and what everybody was told."""

from __future__ import annotations

import asyncio
import random
import re
import smtplib
import ssl
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP as Server
from aiosmtpd.smtp import Envelope, Session

from tests.flow.clients import letter, message_id, submission

FAR = "far.test"
NOBODY = f"nobody@{FAR}"
BACK_S = 60.0


class FarServer:
    """The MX host of far.test: keeps count of what it took, is at times busy, and knows no `nobody`."""

    def __init__(self, port: int, seed: int) -> None:
        self.taken: Counter[tuple[str, str]] = Counter()
        self._moods = random.Random(seed)
        self._controller = Controller(self, hostname="127.0.0.1", port=port, ready_timeout=10)

    def __enter__(self) -> FarServer:
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()

    async def handle_RCPT(
        self, server: Server, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address == NOBODY:
            return "550 5.1.1 nobody of that name"
        if self._moods.random() < 0.05:
            return "451 4.3.2 busy, come back"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 good"

    async def handle_DATA(self, server: Server, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        name = message_id(envelope.content)
        for address in envelope.rcpt_tos:
            self.taken[name, address] += 1
        return "250 2.0.0 mine now"


@dataclass
class Books:
    """What the senders were told, by Message-ID."""

    accepted: dict[str, tuple[Any, frozenset[str]]] = field(default_factory=dict)  # sender, accepted recipients
    cut: set[str] = field(default_factory=set)  # sent to its end, and no answer came: kept or not (RFC 1047)
    offered: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)


class Sender:
    """One client that sends mixed mail until it is told to stop, again and again where it is told to come back."""

    def __init__(self, platform: Any, books: Books, user: Any, locals_: list[Any], seed: int, largest: int) -> None:
        self._platform, self._books, self._user, self._locals = platform, books, user, locals_
        self._dice = random.Random(seed)
        self._largest = largest
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"sender-{seed}")
        self._client: smtplib.SMTP | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Finish the message in hand and return."""
        self._stop.set()
        self._thread.join(BACK_S * 2)
        assert not self._thread.is_alive(), "a sender hangs"

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._settle(*self._write())
        except Exception as error:
            self._books.wrong.append(repr(error))
        if self._client is not None:
            self._client.close()

    def _write(self) -> tuple[bytes, list[str]]:
        """The next message and whom it is for: one to three of ours, at times somebody far away, at times nobody."""
        size = int(1000 * (self._largest / 1000) ** (self._dice.random() ** 6))
        recipients = [each.address for each in self._dice.sample(self._locals, self._dice.randint(1, 3))]
        if self._dice.random() < 0.4:
            names = self._dice.sample(("ann", "ben", "cat"), self._dice.randint(1, 2))
            recipients += [f"{name}@{FAR}" for name in names]
        if self._dice.random() < 0.05:
            recipients = [NOBODY]
        body = "".join(f"{self._dice.getrandbits(280):070x}\r\n" for _ in range(size // 72 + 1))
        return letter(self._user.address, recipients[0], body), recipients

    def _settle(self, message: bytes, recipients: list[str]) -> None:
        self._books.offered.add(message_id(message))
        deadline = time.monotonic() + BACK_S
        while not self._offer(message, recipients):
            if time.monotonic() > deadline:
                self._books.wrong.append(f"not accepted within {BACK_S:g} s")
                return
            self._stop.wait(0.02)  # the far side asked us to come back: no busy loop

    def _offer(self, message: bytes, recipients: list[str]) -> bool:
        """One try; False when it was refused for now."""
        try:
            self._client = client = self._client or submission(self._platform, self._user)
            codes = [client.mail(self._user.address)[0]]
            codes += [client.rcpt(each)[0] for each in recipients]
            accepted = [each for each, code in zip(recipients, codes[1:], strict=True) if code == 250]
            if codes[0] != 250 or len(accepted) < len(recipients) or client.docmd("DATA")[0] != 354:
                if any(code >= 500 for code in codes):
                    self._books.wrong.append(f"refused for good: {codes}")
                    return True
                client.rset()
                return False
        except (OSError, smtplib.SMTPException, ssl.SSLError):
            self._client = None
            return False
        name = message_id(message)
        try:
            client.send(re.sub(rb"(?m)^\.", b"..", message) + b".\r\n")
            code, said = client.getreply()
        except (OSError, smtplib.SMTPException):
            self._client = None
            self._books.cut.add(name)
            return True
        if code >= 500:
            self._books.wrong.append(f"refused for good: {code} {said!r}")
        if code == 250:
            self._books.accepted[name] = (self._user, frozenset(recipients))
        return code == 250 or code >= 500


def reports(messages: list[bytes]) -> dict[str, set[str]]:
    """Of the failure notices in a mailbox: by the original's Message-ID, the recipients they give up on."""
    found: dict[str, set[str]] = defaultdict(set)
    for each in messages:
        if b"multipart/report" not in each:
            continue
        names = re.findall(rb"(?im)^message-id: *<([^>]+@flow\.test)>", each)
        failed = re.findall(rb"(?im)^final-recipient: *rfc822; *(\S+)", each)
        if names:
            assert not found[names[0].decode()], "two notices about one message"
            found[names[0].decode()] |= {address.decode() for address in failed}
    return found


async def rows(url: str, *tables: str) -> int:
    """How many rows these tables hold together."""
    import asyncpg

    conn = await asyncpg.connect(url)
    try:
        return sum([int(await conn.fetchval(f"SELECT count(*) FROM {table}")) for table in tables])
    finally:
        await conn.close()


def left(platform: Any) -> int:
    """Messages that are still on their way."""
    return asyncio.run(rows(platform.database_url, "spool", "spool_recipients"))
