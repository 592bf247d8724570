"""POP3 as a postmaster would type it: every script in `pop/`, through memory and over TCP.

A script has header lines, a line `---`, and the conversation. Header: `RFC:` what it proves; `messages:` names of the
messages in the INBOX, from `MESSAGES`; `tls: yes` a connection that begins with TLS; `stls: no` a server without a
certificate. Conversation: `C:` is sent, `S:` expected word for word, where `[...]` stands for anything and `$name` for
what was seen there first; `C2:`, `S2:` speak in a second session. `C:` lines in a row are sent at once. `{...}` in a
`C:` line is base64 of what it holds, `\\0` for NUL; `{scram ...}` is computed. Events: `* tls` begins the handshake,
`* gone` says that the server has closed, `* vanish` cuts the line, `* expunge 2` is another reader expunging the second
message, `* store down` and `* store up` cut and mend the way to Postgres.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest

from services.core.auth.login import Cancelled, ExchangeBroken
from services.core.auth.login import Client as Peer
from services.core.store.engine import Store
from services.core.store.locks import AccountLocks
from services.core.store.messages import Placed
from services.pop.commands import COMMANDS, execute
from services.pop.session import Session
from services.pop.wire import Framer, ok, parse
from tests.unit.pop.house import PASSWORD, House, Relay, expunge, house, put

MESSAGES = {
    "plain": b"Subject: plain\r\nFrom: bob@posta.test\r\n\r\none\r\ntwo\r\nthree\r\n",
    "dots": b"Subject: dots\r\n\r\n.\r\n..\r\n.one\r\n",
    "bare": b"Subject: bare\r\n\r\na\n.\nb\n..\n",
    "open": b"Subject: open\r\n\r\nno end of line",
    "header": b"Subject: header only\r\n",
    "utf8": "Subject: Grüße\r\nFrom: jürgen@posta.test\r\n\r\nstraße\r\n".encode(),
}
SCRIPTS = sorted(Path(__file__).with_name("pop").glob("*.txt"))
SECOND_S = 10


class Step(NamedTuple):
    """One line of a script."""

    number: int
    kind: str  # C, S, or * for an event
    session: int
    text: str


@dataclass
class Script:
    header: dict[str, str]
    steps: list[Step]


def read(path: Path) -> Script:
    lines = path.read_text().splitlines()
    middle = lines.index("---")
    header = dict(line.split(": ", 1) for line in lines[:middle])
    steps = []
    for number, line in enumerate(lines[middle + 1 :], start=middle + 2):
        if not line or line.startswith("#"):
            continue
        found = re.fullmatch(r"([CS*])(\d?):? ?(.*)", line)
        assert found, f"{path.name}:{number}: {line}"
        steps.append(Step(number, found[1], int(found[2] or 1), found[3]))
    return Script(header, steps)


# ---- two doors -------------------------------------------------------------------------------------------------


class Line(Protocol):
    """A client's end of a connection."""

    async def send(self, octets: bytes) -> None: ...
    async def receive(self) -> bytes: ...
    async def start_tls(self) -> None: ...
    async def vanish(self) -> None: ...


class InMemory:
    """Framer, parser, commands and session, without a socket."""

    def __init__(self, house: House, tls: bool, stls: bool) -> None:
        self._lines: asyncio.Queue[bytes] = asyncio.Queue()
        self._framer, self._out = Framer(), asyncio.StreamReader()
        self._session = Session(house.shared, Peer("127.0.0.1", "pop"), self._ask, tls=tls, stls=stls)
        self._task = asyncio.create_task(self._run())

    async def send(self, octets: bytes) -> None:
        for line in self._framer.feed(octets):
            self._lines.put_nowait(line)

    async def receive(self) -> bytes:
        return await self._out.readline()

    async def start_tls(self) -> None:
        assert self._session.begins_tls
        self._session.secured()

    async def vanish(self) -> None:
        self._task.cancel()
        await asyncio.wait((self._task,))

    async def _run(self) -> None:
        self._out.feed_data(ok("Posta ready"))
        try:
            while not self._session.over:
                self._out.feed_data(await execute(self._session, parse(await self._lines.get())))
        finally:
            self._out.feed_eof()
            await self._session.close()

    async def _ask(self, challenge: bytes) -> bytes:
        self._out.feed_data(b"+ " + b64encode(challenge) + b"\r\n")
        answer = await self._lines.get()
        if answer == b"*":
            raise Cancelled
        try:
            return b64decode(answer, validate=True)
        except ValueError as error:
            raise ExchangeBroken("not base64") from error


class OverTcp:
    """A real connection."""

    def __init__(self, house: House, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._house, self._reader, self._writer = house, reader, writer

    @classmethod
    async def connect(cls, house: House, tls: bool) -> OverTcp:
        if tls:
            assert house.implicit is not None
            context = house.client_tls()
            pair = await asyncio.open_connection(
                "127.0.0.1", house.implicit.port, ssl=context, server_hostname="localhost"
            )
        else:
            pair = await asyncio.open_connection("127.0.0.1", house.listener.port)
        return cls(house, *pair)

    async def send(self, octets: bytes) -> None:
        self._writer.write(octets)
        await self._writer.drain()

    async def receive(self) -> bytes:
        return await self._reader.readline()

    async def start_tls(self) -> None:
        await self._writer.start_tls(self._house.client_tls(), server_hostname="localhost")

    async def vanish(self) -> None:
        self._writer.transport.abort()


# ---- the play --------------------------------------------------------------------------------------------------


@dataclass
class Play:
    """A script being played: what it has bound, who is connected, what can happen to them."""

    house: House
    relay: Relay
    header: dict[str, str]
    memory: bool
    placed: list[Placed]
    lines: dict[int, Line] = field(default_factory=dict)
    bound: dict[str, str] = field(default_factory=dict)
    scram: dict[int, ScramClient] = field(default_factory=dict)
    last: dict[int, str] = field(default_factory=dict)

    async def line(self, session: int) -> Line:
        if session not in self.lines:
            tls, stls = self.header.get("tls") == "yes", self.header.get("stls") != "no"
            if self.memory:
                self.lines[session] = InMemory(self.house, tls, stls)
            else:
                self.lines[session] = await OverTcp.connect(self.house, tls)
        return self.lines[session]

    async def say(self, steps: list[Step]) -> None:
        session = steps[0].session
        octets = "".join(self._words(session, step.text) + "\r\n" for step in steps)
        await (await self.line(session)).send(octets.encode())

    async def expect(self, step: Step) -> None:
        async with asyncio.timeout(SECOND_S):
            got = await (await self.line(step.session)).receive()
        text = got.decode()
        assert text, f"line {step.number}: the server closed instead of {step.text!r}"
        # A line that ends with a bare LF is written with "\\n"
        self.last[step.session] = text = text[:-2] if text.endswith("\r\n") else text[:-1] + "\\n"
        names = re.findall(r"\$(\w+)", step.text)
        pattern = re.escape(step.text).replace(r"\[\.\.\.\]", ".*")
        for name in names:
            known = self.bound.get(name)
            pattern = pattern.replace(rf"\${name}", re.escape(known) if known else rf"(?P<{name}>\S+)", 1)
        found = re.fullmatch(pattern, text, re.DOTALL)
        assert found, f"line {step.number}: expected {step.text!r}, got {text!r}"
        self.bound |= found.groupdict()

    async def happen(self, step: Step) -> None:
        match step.text.split():
            case ["tls"]:
                await (await self.line(step.session)).start_tls()
            case ["gone"]:
                async with asyncio.timeout(SECOND_S):
                    assert await (await self.line(step.session)).receive() == b"", f"line {step.number}"
            case ["vanish"]:
                await self.lines[step.session].vanish()
                del self.lines[step.session]
            case ["expunge", number]:
                await expunge(self.house.store, self.house.account, [self.placed[int(number) - 1]])
            case ["store", "down"]:
                self.relay.cut()
            case ["store", "up"]:
                await self.relay.mend()
            case _:
                pytest.fail(f"line {step.number}: no such event: {step.text}")

    def _words(self, session: int, text: str) -> str:
        return re.sub(r"\{(.*?)\}", lambda found: self._encoded(session, found[1]), text)

    def _encoded(self, session: int, words: str) -> str:
        if words == "scram first":
            self.scram[session] = ScramClient()
            return b64encode(self.scram[session].first()).decode()
        if words.startswith("scram final"):
            challenge = b64decode(self.last[session].removeprefix("+ "))
            return b64encode(self.scram[session].final(challenge, words.removeprefix("scram final ").strip())).decode()
        return b64encode(words.replace("\\0", "\0").encode()).decode()


class ScramClient:
    """The client's half of SCRAM-SHA-256 (RFC 5802 3), written for this test alone."""

    bare = b"n=alice@posta.test,r=0123456789"

    def first(self) -> bytes:
        return b"n,," + self.bare

    def final(self, challenge: bytes, password: str) -> bytes:
        values = dict(part.split(b"=", 1) for part in challenge.split(b","))
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), b64decode(values[b"s"]), int(values[b"i"]))
        key = hmac.digest(salted, b"Client Key", "sha256")
        without = b"c=biws,r=" + values[b"r"]
        signed = b",".join((self.bare, challenge, without))
        signature = hmac.digest(hashlib.sha256(key).digest(), signed, "sha256")
        proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
        return without + b",p=" + b64encode(proof)


@asynccontextmanager
async def stage(script: Script, memory: bool, store: Store, url: str, folder: Path) -> AsyncIterator[Play]:
    relay = Relay(url)
    await relay.mend()
    async with AsyncExitStack() as stack:
        served_by, locks = Store(relay.url), AccountLocks(relay.url)
        stack.push_async_callback(served_by.close)
        tls = script.header.get("stls") != "no"
        there = await stack.enter_async_context(
            house(store, folder, url=relay.url, tls=tls, served_by=served_by, locks=locks)
        )
        contents = [MESSAGES[name] for name in script.header.get("messages", "").split()]
        placed = await put(store, there.account, contents) if contents else []
        play = Play(there, relay, script.header, memory, placed)
        try:
            yield play
        finally:
            for line in play.lines.values():
                await line.vanish()
    relay.cut()


@pytest.mark.parametrize("door", ["memory", "tcp"])
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
async def test_script(path: Path, door: str, store: Store, postgres_url: str, tmp_path: Path) -> None:
    script = read(path)
    async with stage(script, door == "memory", store, postgres_url, tmp_path) as play:
        for (kind, session), group in groupby(script.steps, key=lambda step: (step.kind, step.session)):
            steps = list(group)
            if kind == "C":
                await play.say([step for step in steps if step.session == session])
                continue
            for step in steps:
                await (play.expect(step) if kind == "S" else play.happen(step))


def test_there_is_a_script_for_every_command_and_capability() -> None:
    words = {word for path in SCRIPTS for step in read(path).steps if step.kind == "C" for word in step.text.split()}
    assert {command.keyword for command in COMMANDS} <= words
    assert PASSWORD.split()[0] in words
