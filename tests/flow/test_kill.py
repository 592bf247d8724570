"""`kill -9` of any one service while mail comes in: what was accepted is there once, the rest was refused or cut."""

import asyncio
import smtplib
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest

from services.core.bus import Bus
from tests.flow.clients import inbox, letter, message_id, submission

SENDS, SESSIONS = 500, 4
KILL_AFTER = 120
VICTIMS = ("submission", "mxrouter", "filter", "delivery", "nats", "postgres", "imap", "pop", "sync")
BACK_S = 40.0


@dataclass
class Books:
    """What the senders of one run were told."""

    user: Any
    accepted: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)  # sent to its end, and no answer came: kept or not (RFC 1047)
    refusals: int = 0
    enough: threading.Event = field(default_factory=threading.Event)
    wrong: list[str] = field(default_factory=list)

    def note(self, codes: list[int]) -> None:
        if any(code >= 500 for code in codes):
            self.wrong.append(f"refused for good: {codes}")

    def kept(self, name: str) -> None:
        self.accepted.add(name)
        if len(self.accepted) >= KILL_AFTER:
            self.enough.set()


@pytest.fixture(scope="module")
def runs(mortal: Any) -> dict[str, Books]:
    """Every run so far, for the last look."""
    return {}


@pytest.mark.parametrize("victim", VICTIMS)
def test_kill(mortal: Any, runs: dict[str, Books], victim: str) -> None:
    if victim not in mortal.state["services"]:
        pytest.fail(f"{victim} does not run")
    books = runs[victim] = Books(mortal.add_user())
    sessions = [Session(mortal, books, by_mx=n % 2 == 1) for n in range(SESSIONS)]
    senders = [threading.Thread(target=each.send_all, args=(SENDS // SESSIONS,)) for each in sessions]
    for each in senders:
        each.start()
    assert books.enough.wait(30), "nothing is accepted"

    mortal.kill(victim)

    for each in senders:
        each.join(BACK_S + 30)
    mortal.until_ready(victim)
    assert not books.wrong, books.wrong[:3]
    assert len(books.accepted) + len(books.cut) == SENDS
    assert len(books.cut) <= SESSIONS
    mortal.eventually(
        "all that was accepted is there", lambda: len(names(mortal, books)) >= len(books.accepted), BACK_S
    )
    once(mortal, books)


def test_nothing_is_left_behind(mortal: Any, runs: dict[str, Books]) -> None:
    mortal.eventually("the spool is empty", lambda: asyncio.run(spooled(mortal.database_url)) == 0, 60)
    mortal.eventually("the stream is empty", lambda: asyncio.run(streamed(mortal.nats_url)) == 0, 30)
    for books in runs.values():
        once(mortal, books)


class Session:
    """One client's connections, one after the other."""

    def __init__(self, platform: Any, books: Books, by_mx: bool) -> None:
        self.platform, self.books, self.by_mx = platform, books, by_mx
        self.sender = platform.add_user()
        self.client: smtplib.SMTP | None = None

    def send_all(self, count: int) -> None:
        for _ in range(count):
            message = letter(self.sender.address, self.books.user.address)
            deadline = time.monotonic() + BACK_S
            while not self.settled(message):
                if time.monotonic() > deadline:
                    self.books.wrong.append(f"not accepted within {BACK_S:g} s")
                    return
                self.books.refusals += 1
                time.sleep(0.02)
        if self.client is not None:
            self.client.close()

    def settled(self, message: bytes) -> bool:
        """Offer it once; False when it was refused for now."""
        try:
            self.client = client = self.client or self.connected()
            codes = [client.mail(self.sender.address)[0], client.rcpt(self.books.user.address)[0]]
            codes.append(client.docmd("DATA")[0] if codes == [250, 250] else client.rset()[0])
        except (OSError, smtplib.SMTPException):
            self.client = None
            return False
        if codes != [250, 250, 354]:
            self.books.note(codes)
            return False
        try:
            client.send(message + b".\r\n")
            code = client.getreply()[0]
        except (OSError, smtplib.SMTPException):
            self.client = None
            self.books.cut.add(message_id(message))
            return True
        self.books.note([code])
        if code == 250:
            self.books.kept(message_id(message))
        return code == 250

    def connected(self) -> smtplib.SMTP:
        if not self.by_mx:
            return submission(self.platform, self.sender)
        client = smtplib.SMTP("localhost", self.platform.ports["smtp"], timeout=60)
        client.ehlo()
        return client


def names(platform: Any, books: Books) -> Counter[str]:
    """How often each message lies in the INBOX."""
    return Counter(message_id(each) for each in inbox(platform, books.user))


def once(platform: Any, books: Books) -> None:
    there = names(platform, books)
    assert books.accepted <= there.keys(), f"lost: {books.accepted - there.keys()}"
    assert there.keys() <= books.accepted | books.cut, "there, and never accepted"
    assert set(there.values()) == {1}, f"twice: {[name for name, times in there.items() if times > 1]}"


async def spooled(url: str) -> int:
    conn = await asyncpg.connect(url)
    try:
        return int(await conn.fetchval("SELECT (SELECT count(*) FROM spool) + (SELECT count(*) FROM spool_recipients)"))
    finally:
        await conn.close()


async def streamed(url: str) -> int:
    bus = await Bus.connect(url, "test")
    try:
        answer = await bus.api("STREAM.INFO.WORK", {})
        return int(answer["state"]["messages"])
    finally:
        await bus.close()
