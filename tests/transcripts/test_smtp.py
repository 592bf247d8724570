"""SMTP as a postmaster would type it: every script in `smtp/`, through memory and over TCP.

The doors are the real ones, on Postgres and NATS; a filter of this test's own accepts everything, or with `verdict:
held` holds it all for review. Scripts are written as those of POP. Header: `RFC:` what it proves; `door:` submission or
mx; `tls: yes` a connection that begins with TLS; `starttls: no` a server without a certificate; `login: yes` greeted
and logged in as alice already; `size:` and `recipients:` limits other than the usual; `rules:` what the MX door
demands; `named: no` a client whose address has no name; `greylist:` for how many seconds first tries are put off;
`pace:` how many messages its network may send. In a `C:` line `\\n` and `\\r` are those characters alone, `\\` at its
end means that no line end follows, and `<<90>>` is so many x. Events: `* tls` begins the handshake, `* gone` says that
the server has closed, `* spool 2` that two messages have been kept so far, `* kept with requiretls` that all of them
were kept so, `* stamped from a (b` that their trace header says so, `* scanned iprev=pass` what the filter was told of
the client, `* held 1` that one is held, `* policy posta.test accept` changes what that domain does about those, `*
limit alice@posta.test 2` how many recipients an hour it may have, `* pause` that it may have none; `* waits remote.test
2` that two recipients wait to be relayed there, `* filter down` that nobody gives verdicts any more, `* 60 seconds
pass` for those who were put off.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import tempfile
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Protocol

import pytest
from sqlalchemy import text

from services.contracts.v1.mail_pb2 import Finding, ScanRequest, Verdict
from services.core.auth import enroll
from services.core.auth.authenticator import Authenticator
from services.core.bus import Bus, Subscription, scan
from services.core.directory import Directory
from services.core.ends import Ends
from services.core.intake import Intake
from services.core.ownmail import OwnMail
from services.core.settings import Settings
from services.core.smtp.commands import COMMANDS
from services.core.smtp.conversation import Conversation
from services.core.smtp.dialogue import converse
from services.core.smtp.hooks import Hooks
from services.core.smtp.options import Options
from services.core.smtp.replies import Reply
from services.core.smtp.server import serve
from services.core.smtp.session import Session, Tls
from services.core.smtp.wire import Event, Framer
from services.core.spool import Spool
from services.core.store import accounts, quarantine, sending
from services.core.store.engine import Store
from services.core.telemetry import Metrics, logger
from services.core.tls import ensure_dev_certificate, server_context
from services.mxrouter.greylist import Greylist
from services.mxrouter.listener import Door as MxDoor
from services.mxrouter.policy import Rules
from services.submission.allowance import Allowance
from services.submission.door import Door as SubmissionDoor
from tests.transcripts.test_pop import ScramClient, Script, Step, read
from tests.unit.core.conftest import NatsServer, up
from tests.unit.filter.origin.zone import DEAD, Zone

SCRIPTS = sorted(Path(__file__).with_name("smtp").glob("*.txt"))
PASSWORD = "correct horse"
VERDICTS = {
    "accepted": Verdict(action=Verdict.ACCEPT),
    "held": Verdict(
        action=Verdict.QUARANTINE,
        code=550,
        enhanced="5.7.1",
        text="Message refused: it looks like spam",
        kind="spam",
        score=12.5,
        findings=[Finding(engine="auth", symbol="SPF_PASS", kind="policy")],
    ),
}
# What the MX door's DNS knows: in memory the client is 192.0.2.7, over TCP 127.0.0.1.
WORLD = {
    "elsewhere.test": ["MX 10 mx.elsewhere.test."],
    "host.elsewhere.test": ["A 192.0.2.7"],
    "silent.test": ["MX 0 ."],
    "dead.test": [DEAD],
}
NAMED = {
    "7.2.0.192.in-addr.arpa": ["PTR client.test."],
    "1.0.0.127.in-addr.arpa": ["PTR client.test."],
    "client.test": ["A 192.0.2.7", "A 127.0.0.1"],
}
SECOND_S = 10


# ---- two ways in -----------------------------------------------------------------------------------------------


class Line(Protocol):
    """A client's end of a connection."""

    async def send(self, octets: bytes) -> None: ...
    async def receive(self) -> bytes: ...
    async def start_tls(self) -> None: ...
    async def vanish(self) -> None: ...


class Channel:
    """The server's end of a connection without a socket."""

    def __init__(self, tls_possible: bool) -> None:
        self.framer, self.out, self.came = Framer(), asyncio.StreamReader(), asyncio.Event()
        self.tls_possible = tls_possible

    def send(self, octets: bytes) -> None:
        self.out.feed_data(octets)

    async def line(self, drainable: bool = True) -> Event:
        return await self._take()

    async def message(self, limit: int) -> Event:
        self.framer.want_message(limit)
        return await self._take()

    async def chunk(self, size: int, keep: bool) -> Event:
        self.framer.want_chunk(size, keep)
        return await self._take()

    @property
    def unread(self) -> int:
        return len(self.framer)

    def discard_unread(self) -> None:
        self.framer.discard()

    async def start_tls(self, ready: Reply) -> Tls:
        self.send(ready.wire)
        return _TLS

    def progressed(self) -> None:
        return None

    async def _take(self) -> Event:
        while (event := self.framer.take()) is None:
            self.came.clear()
            await self.came.wait()
        return event


class InMemory:
    """The client's end of it."""

    def __init__(self, hooks: Hooks, options: Options, tls: bool, starttls: bool) -> None:
        self._channel = Channel(starttls)
        session = Session(Ends("192.0.2.7", 4711), Ends("127.0.0.1", 25), tls=_TLS if tls else None)
        conversation = Conversation(hooks, options, session, self._channel, logger("test"))
        self._task = asyncio.create_task(self._run(conversation))

    async def send(self, octets: bytes) -> None:
        self._channel.framer.feed(octets)
        self._channel.came.set()

    async def receive(self) -> bytes:
        return await self._channel.out.readline()

    async def start_tls(self) -> None:
        return None

    async def vanish(self) -> None:
        self._task.cancel()
        await asyncio.wait((self._task,))

    async def _run(self, conversation: Conversation) -> None:
        try:
            await converse(conversation)
        finally:
            self._channel.out.feed_eof()


class OverTcp:
    """A real connection to a real listener."""

    def __init__(self, ca: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._ca, self._reader, self._writer = ca, reader, writer

    async def send(self, octets: bytes) -> None:
        self._writer.write(octets)
        await self._writer.drain()

    async def receive(self) -> bytes:
        return await self._reader.readline()

    async def start_tls(self) -> None:
        await self._writer.start_tls(ssl.create_default_context(cafile=str(self._ca)), server_hostname="localhost")

    async def vanish(self) -> None:
        self._writer.transport.abort()


_TLS = Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384")


# ---- the house behind the door ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nats() -> Iterator[NatsServer]:
    with tempfile.TemporaryDirectory() as folder:
        server = NatsServer(Path(folder))
        server.start()
        yield server
        server.kill()


async def people(store: Store) -> None:
    """Who the scripts are about."""
    async with store.begin("test") as conn:
        await accounts.create_domain(conn, "posta.test")
        await accounts.create_domain(conn, "other.test")
        await accounts.create(conn, "dora@other.test")
        alice = await accounts.create(conn, "alice@posta.test")
        await enroll.set_password(conn, alice, PASSWORD)
        for name in ("bob", "carol", "jörg"):
            await accounts.create(conn, f"{name}@posta.test")
        await accounts.create(conn, "small@posta.test", quota_octets=1000)
        await accounts.suspend(conn, await accounts.create(conn, "away@posta.test"))
        await accounts.add_alias(conn, "team@posta.test", ["bob@posta.test", "carol@posta.test"])
        await accounts.add_alias(conn, "moved@posta.test", ["dave@elsewhere.test"])


@asynccontextmanager
async def behind(
    store: Store, nats: NatsServer, header: Mapping[str, str]
) -> AsyncIterator[tuple[Hooks, Subscription, list[ScanRequest]]]:
    """The door's hooks, and the filter that answers it."""
    log, metrics, settings, door = logger("test"), Metrics("test"), Settings(), header.get("door", "submission")
    async with AsyncExitStack() as stack:
        bus = await Bus.connect(nats.url, "test")
        stack.push_async_callback(bus.close)
        await up(bus)

        asked: list[ScanRequest] = []

        async def accept(request: ScanRequest) -> Verdict:
            asked.append(request)
            return VERDICTS[header.get("verdict", "accepted")]

        verdicts = await bus.respond(scan(), "filter", ScanRequest, accept, 8)
        directory = Directory(store, bus)
        await directory.start()
        intake = Intake(
            Spool(store, bus, log), bus, directory, log, metrics, door=door, host="mx.posta.test", deadline_s=5
        )
        if door == "mx":
            names = Zone(WORLD | (NAMED if header.get("named") != "no" else {}))
            demanded = header.get("rules", "").split()
            rules = Rules("helo" in demanded, "rdns" in demanded, "sender" in demanded)
            wait_s = float(header.get("greylist", 0))
            greylist = Greylist(store, wait_s, log) if wait_s else None
            pace = int(header.get("pace", 0))
            mx = MxDoor(
                intake, names, host="mx.posta.test", rules=rules, greylist=greylist, per_minute=pace, clock=lambda: 0.0
            )
            yield mx, verdicts, asked
            return
        authenticator = Authenticator(store, bus, settings)
        stack.callback(authenticator.close)
        await authenticator.start()
        allowance = Allowance(store, bus, OwnMail(Spool(store, bus, log), directory), settings, log, metrics)
        await allowance.start()
        host = "mx.posta.test"
        yield (
            SubmissionDoor(
                authenticator, directory, intake, allowance, host=host, plaintext_auth=False, require_known_from=True
            ),
            verdicts,
            asked,
        )


# ---- the play --------------------------------------------------------------------------------------------------


@dataclass
class Play:
    """A script being played."""

    line: Line
    store: Store
    verdicts: Subscription
    asked: list[ScanRequest]
    bound: dict[str, str] = field(default_factory=dict)
    scram: ScramClient = field(default_factory=ScramClient)
    last: str = ""

    async def log_in(self) -> None:
        await self.line.receive()
        await self.line.send(b"EHLO client.test\r\n")
        while (await self.line.receive())[3:4] == b"-":
            continue
        await self.line.send(b"AUTH PLAIN " + b64encode(f"\0alice@posta.test\0{PASSWORD}".encode()) + b"\r\n")
        assert (await self.line.receive()).startswith(b"235")

    async def say(self, steps: list[Step]) -> None:
        await self.line.send(b"".join(self._octets(step.text) for step in steps))

    async def expect(self, step: Step) -> None:
        async with asyncio.timeout(SECOND_S):
            got = (await self.line.receive()).decode()
        assert got, f"line {step.number}: the server closed instead of {step.text!r}"
        assert got.endswith("\r\n")
        self.last = got = got[:-2]
        names = re.findall(r"\$(\w+)", step.text)
        pattern = re.escape(step.text).replace(r"\[\.\.\.\]", ".*")
        for name in names:
            known = self.bound.get(name)
            pattern = pattern.replace(rf"\${name}", re.escape(known) if known else rf"(?P<{name}>\S+)", 1)
        found = re.fullmatch(pattern, got)
        assert found, f"line {step.number}: expected {step.text!r}, got {got!r}"
        self.bound |= found.groupdict()

    async def happen(self, step: Step) -> None:
        match step.text.split():
            case ["tls"]:
                await self.line.start_tls()
            case ["gone"]:
                async with asyncio.timeout(SECOND_S):
                    assert await self.line.receive() == b"", f"line {step.number}"
            case ["spool", count]:
                async with self.store.query("test") as conn:
                    kept = (await conn.execute(text("SELECT count(*) FROM spool"))).scalar_one()
                assert kept == int(count), f"line {step.number}: {kept} are kept"
            case ["waits", domain, count]:
                async with self.store.query("test") as conn:
                    row = text("SELECT count(*) FROM spool_recipients WHERE domain = :d AND account_id IS NULL")
                    waiting = (await conn.execute(row, {"d": domain})).scalar_one()
                assert waiting == int(count), f"line {step.number}: {waiting} wait for {domain}"
            case ["held", count]:
                assert len(await quarantine.find(self.store)) == int(count), f"line {step.number}"
            case ["policy", domain, on_held]:
                async with self.store.begin("test") as conn:
                    await quarantine.set_policy(conn, domain, on_held=on_held)
            case ["pause", address]:
                async with self.store.query("test") as conn:
                    account = await accounts.get(conn, address)
                assert await sending.pause(self.store, account.account_id, None, 0)
            case ["limit", address, hour]:
                async with self.store.begin("test") as conn:
                    account = await accounts.get(conn, address)
                    await sending.set_limits(conn, account.account_id, int(hour), None)
            case ["filter", "down"]:
                await self.verdicts.unsubscribe()
            case [seconds, "seconds", "pass"]:
                async with self.store.begin("test") as conn:
                    ago = "UPDATE greylist SET first_at = first_at - make_interval(secs => :s)"
                    await conn.execute(text(ago), {"s": float(seconds)})
            case ["scanned", *facts]:
                client = self.asked[-1].client
                for name, _, value in (fact.partition("=") for fact in facts):
                    assert str(getattr(client, name)) == value, f"line {step.number}: {client}"
            case ["stamped", *words]:
                async with self.store.query("test") as conn:
                    (prefix,) = (await conn.execute(text("SELECT prefix FROM spool"))).one()
                assert " ".join(words).encode() in b" ".join(prefix.split()), f"line {step.number}: {prefix}"
            case ["kept", "with", column]:
                async with self.store.query("test") as conn:
                    kept = (await conn.execute(text(f"SELECT bool_and({column}) FROM spool"))).scalar_one()
                assert kept is True, f"line {step.number}"
            case _:
                pytest.fail(f"line {step.number}: no such event: {step.text}")

    def _octets(self, words: str) -> bytes:
        words = re.sub(r"\{(.*?)\}", lambda found: self._encoded(found[1]), words)
        words = re.sub(r"<<(\d+)>>", lambda found: "x" * int(found[1]), words)
        end = "" if words.endswith("\\") else "\r\n"
        return (words.removesuffix("\\").replace("\\n", "\n").replace("\\r", "\r") + end).encode()

    def _encoded(self, words: str) -> str:
        if words == "scram first":
            return b64encode(self.scram.first()).decode()
        if words.startswith("scram final"):
            challenge = b64decode(self.last.removeprefix("334 "))
            return b64encode(self.scram.final(challenge, words.removeprefix("scram final ").strip())).decode()
        return b64encode(words.replace("\\0", "\0").encode()).decode()


@asynccontextmanager
async def stage(script: Script, memory: bool, store: Store, nats: NatsServer, folder: Path) -> AsyncIterator[Play]:
    header = script.header
    door, tls, starttls = header.get("door", "submission"), header.get("tls") == "yes", header.get("starttls") != "no"
    tls = tls or header.get("login") == "yes"
    options = Options(
        hostname="mx.posta.test",
        max_size=int(header.get("size", 10_000_000)),
        max_recipients=int(header.get("recipients", 100)),
        require_auth=door == "submission",
    )
    await people(store)
    async with AsyncExitStack() as stack:
        hooks, verdicts, asked = await stack.enter_async_context(behind(store, nats, header))
        if memory:
            line: Line = InMemory(hooks, options, tls, starttls and not tls)
        else:
            dev = ensure_dev_certificate(folder, ["localhost"])
            context = server_context(dev.cert, dev.key)
            server = await serve(
                hooks,
                options,
                log=logger("test"),
                tls=(lambda: context) if starttls or tls else None,
                implicit_tls=tls,
            )
            stack.push_async_callback(server.close, 1)
            trusted = ssl.create_default_context(cafile=str(dev.ca)) if tls else None
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", server.addresses[0].port, ssl=trusted, server_hostname="localhost" if tls else None
            )
            line = OverTcp(dev.ca, reader, writer)
        stack.push_async_callback(line.vanish)
        play = Play(line, store, verdicts, asked)
        if header.get("login") == "yes":
            await play.log_in()
        yield play


@pytest.mark.parametrize("way", ["memory", "tcp"])
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
async def test_script(path: Path, way: str, store: Store, nats: NatsServer, tmp_path: Path) -> None:
    script = read(path)
    async with stage(script, way == "memory", store, nats, tmp_path) as play:
        for kind, group in groupby(script.steps, key=lambda step: step.kind):
            steps = list(group)
            if kind == "C":
                await play.say(steps)
                continue
            for step in steps:
                await (play.expect(step) if kind == "S" else play.happen(step))


def test_there_is_a_script_for_every_command() -> None:
    words = {step.text.split()[0] for path in SCRIPTS for step in read(path).steps if step.kind == "C" and step.text}
    assert set(COMMANDS) <= words
