"""IMAP transcripts: scripts a postmaster can read, on the real store, through memory and over TCP with TLS.

A script has header lines (`rfc:`, `state:` none | auth | selected, `connections:`, `messages:`,
`notify:` seconds until an idling client hears something), a blank line, then
`C:` lines, sent under a tag of their own, and `S:` lines. An `S:` that starts with OK, NO or BAD is the completion of
the command before it; every other is a response that must have come by then, in any order; more may come. `S!` must
not have come. `C2:` and `S2:` are the second connection. In a line `...` is anything, `$name` is bound when first seen
and the same from then on, `\\r\\n` is a line end inside a literal, and `<<text>>` is sent as a literal.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import pytest
import structlog
from sqlalchemy import event
from sqlalchemy.engine import Engine

from services.core.auth import enroll
from services.core.auth.authenticator import Authenticator
from services.core.auth.login import Client
from services.core.ids import AccountId
from services.core.settings import Settings
from services.core.store import accounts, blobs, content, messages
from services.core.store.engine import Store
from services.core.store.messages import Placement
from services.core.stream import Listener
from services.core.tls import ensure_dev_certificate, server_context
from services.core.training import Teacher
from services.imap import queries
from services.imap.feature import Registry
from services.imap.features import FEATURES, OFFERS
from services.imap.notifier import Notifier
from services.imap.server import Connections
from services.imap.session import Services, Session
from services.imap.wire.encode import encode
from services.imap.wire.framer import Framer, NeedLiteral, Request
from services.imap.wire.responses import Response

SCRIPTS = sorted((Path(__file__).parent / "imap").glob("*.txt"))
USER, PASSWORD = "bob@posta.test", "posta-demo"
WAIT_S = 10.0


# ---- scripts ---------------------------------------------------------------------------------------------------


@dataclass
class Script:
    header: dict[str, str]
    lines: list[tuple[str, int, str]] = field(default_factory=list)  # "C", "S" or "!", connection, text


def read(path: Path) -> Script:
    head, _, body = path.read_text().partition("\n\n")
    script = Script(
        {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in head.splitlines())}
    )
    for line in filter(None, body.splitlines()):
        match = re.match(r"([CS])(\d?)([:!]) ?(.*)", line)
        assert match, f"{path.name}: {line}"
        kind = "!" if match[3] == "!" else match[1]
        script.lines.append((kind, int(match[2] or 1), match[4]))
    return script


class Bindings:
    """What `$names` stand for so far."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def fill(self, text: str) -> str:
        return re.sub(r"\$([a-z]\w*)", lambda m: self.known.get(m[1], m[0]), text)

    def matches(self, expected: str, line: str) -> bool:
        parts = re.split(r"(\.\.\.|\$[a-z]\w*)", self.fill(expected))
        names = [part[1:] for part in parts if re.fullmatch(r"\$[a-z]\w*", part)]
        pattern = "".join(
            ".*" if part == "..." else r'([^\s()"\]]+)' if part[:1] == "$" and part[1:] in names else re.escape(part)
            for part in parts
        )
        found = re.fullmatch(pattern, line, re.DOTALL | re.IGNORECASE)
        if found:
            self.known.update(zip(names, found.groups(), strict=True))
        return found is not None


# ---- the doors -------------------------------------------------------------------------------------------------


class Peer(Protocol):
    """A client of either door."""

    said: list[str]

    def send(self, tag: str, text: str) -> None: ...

    async def until(self, found: Callable[[], bool]) -> None: ...

    async def close(self) -> None: ...


class Hints:
    """A bus for one process: hints reach every listener a turn of the loop later."""

    def __init__(self) -> None:
        self.handlers: dict[str, list[Callable[[Any], Awaitable[None] | None]]] = {}

    def publish_hint(self, subject: str, message: Any) -> bool:
        for handler in self.handlers.get(subject, []):
            asyncio.get_running_loop().call_soon(handler, message)
        return True

    async def subscribe_hint(self, subject: str, cls: type, handler: Callable[[Any], Awaitable[None] | None]) -> Any:
        handlers = self.handlers.setdefault(subject, [])
        handlers.append(handler)

        class Listening:
            async def unsubscribe(self) -> None:
                handlers.remove(handler)

        return Listening()


def responses(octets: bytes) -> tuple[list[str], bytes]:
    """The whole responses at the start, literals and all, and what is left of one that is not."""
    found, at = [], 0
    while True:
        end = octets.find(b"\r\n", at)
        while end >= 0 and (literal := re.search(rb"\{(\d+)\}\Z", octets[at:end])):
            end = octets.find(b"\r\n", end + 2 + int(literal[1]))
        if end < 0:
            return found, octets[at:]
        found.append(octets[at:end].decode("utf-8", "surrogateescape"))
        at = end + 2


class MemoryPeer:
    """A client of a session: framer in, encoder out, nothing between."""

    tls = True

    def __init__(self, services: Services) -> None:
        self.session = Session(services, Client("127.0.0.1", "imap"), self)
        self.framer = Framer()
        self.said: list[str] = []  # responses nobody has looked at yet
        self.came = asyncio.Event()
        self.lines: asyncio.Queue[bytes] = asyncio.Queue()
        self.running: asyncio.Task[None] | None = None

    async def read_line(self) -> bytes:
        return await self.lines.get()

    async def write(self, response: Response) -> None:
        self.take(encode(response, ""))

    def upgrade(self) -> None:
        raise AssertionError("there is no TLS here")

    def take(self, octets: bytes) -> None:
        """Cut what the session says into responses, literals and all."""
        said, rest = responses(octets)
        assert rest == b""
        self.said += said
        self.came.set()

    def send(self, tag: str, text: str) -> None:
        if self.running is not None and not self.running.done():
            self.lines.put_nowait(text.encode())
            return
        self.framer.feed(f"{tag} {text}\r\n".encode())
        frame = self.framer.next()
        self.running = asyncio.create_task(self._execute(tag, frame))

    async def _execute(self, tag: str, frame: object) -> None:
        while isinstance(frame, NeedLiteral):
            refusal = await self.session.offer(frame)
            if refusal is not None:
                self.framer.refuse()
                self.take(encode(refusal, tag))
                assert self.framer.next() is None
                return
            self.framer.accept()
            frame = self.framer.next()
        assert isinstance(frame, Request), frame
        request = frame
        async for response in self.session.execute(request):
            self.take(encode(response, request.tag))

    async def until(self, found: Callable[[], bool]) -> None:
        """Return when the responses so far are enough; AssertionError after a while."""
        async with asyncio.timeout(WAIT_S):
            while not found():
                if self.running is not None and self.running.done():
                    self.running.result()
                self.came.clear()
                await self.came.wait()

    async def close(self) -> None:
        if self.running is not None and not self.running.done():
            self.running.cancel()
            await asyncio.wait((self.running,))
        await self.session.close()


class TcpPeer:
    """A client at the other end of a socket, under TLS."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.said: list[str] = []
        self._rest = b""
        self._asked = False  # the server waits for a line that is no command

    @classmethod
    async def connect(cls, port: int, ca: Path) -> "TcpPeer":
        tls = ssl.create_default_context(cafile=str(ca))
        peer = cls(*await asyncio.open_connection("localhost", port, ssl=tls))
        await peer.until(lambda: bool(peer.said))
        assert peer.said.pop().startswith("* OK [CAPABILITY ")
        return peer

    def send(self, tag: str, text: str) -> None:
        line, self._asked = (text if self._asked else f"{tag} {text}"), False
        self._writer.write(line.encode() + b"\r\n")

    async def until(self, found: Callable[[], bool]) -> None:
        """Return when the responses so far are enough; AssertionError where the server leaves first."""
        async with asyncio.timeout(WAIT_S):
            while not found():
                octets = await self._reader.read(65536)
                assert octets, f"the server has closed; it said {self.said}"
                said, self._rest = responses(self._rest + octets)
                self.said += said
                self._asked = self._asked or any(line.startswith("+ ") for line in said)

    async def close(self) -> None:
        self._writer.transport.abort()


# ---- the world -------------------------------------------------------------------------------------------------


async def account(store: Store, count: int) -> AccountId:
    """Bob, with that many messages in INBOX."""
    async with store.begin("test.account") as conn:
        await accounts.create_domain(conn, "posta.test")
        account_id = await accounts.create(conn, USER)
        await enroll.set_password(conn, account_id, PASSWORD)
    placements = []
    for n in range(1, count + 1):
        octets = (
            f"Date: Mon, 1 Jan 2024 10:00:00 +0000\r\nFrom: Alice <alice@posta.test>\r\nTo: bob@posta.test\r\n"
            f"Subject: message {n}\r\nX-Number: {n}\r\n\r\nhello number {n}\r\n"
        ).encode()
        (name,) = await blobs.stage(store, [octets])
        prepared = await content.prepare(name, b"", octets)
        placements.append(Placement(prepared, "inbox", datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)))
    if placements:
        await messages.append(store, account_id, placements)
    return account_id


@asynccontextmanager
async def shared(store: Store, notify_s: float = 0) -> AsyncIterator[Services]:
    """What the sessions of one process share, on that store."""
    log, hints = structlog.get_logger(), Hints()
    authenticator = Authenticator(store, hints, Settings())
    try:
        yield Services(
            store,
            authenticator,
            Notifier(hints, store, log),
            log,
            Registry(FEATURES),
            OFFERS,
            50 << 20,
            Teacher(store, hints, log),
            idle_notify_s=notify_s,
        )
    finally:
        authenticator.close()


@asynccontextmanager
async def world(
    store: Store, connections: int, certificates: Path | None = None, notify_s: float = 0
) -> AsyncIterator[list[Peer]]:
    """Clients of one process: over TCP where there is a folder to make certificates in."""
    async with AsyncExitStack() as stack:
        services = await stack.enter_async_context(shared(store, notify_s))
        if certificates is None:
            peers: list[Peer] = [MemoryPeer(services) for _ in range(connections)]
        else:
            files = ensure_dev_certificate(certificates, ("localhost",))
            context = server_context(files.cert, files.key)
            connected = Connections(services, lambda: context, login_timeout_s=WAIT_S, idle_timeout_s=WAIT_S)
            listener = Listener(connected.serve, services.log, tls=lambda: context, implicit_tls=True)
            await listener.listen("127.0.0.1", 0)
            stack.push_async_callback(listener.close, 0)
            peers = [await TcpPeer.connect(listener.port, files.ca) for _ in range(connections)]
        for peer in peers:
            stack.push_async_callback(peer.close)
        yield peers


class Conversation:
    """Plays a script."""

    def __init__(self, peers: list[Peer]) -> None:
        self.peers = peers
        self.bindings = Bindings()
        self.tags = 0
        self.tag = [""] * len(peers)
        self.banned: list[list[str]] = [[] for _ in peers]

    def send(self, peer: int, text: str) -> None:
        self.tags += 1
        text = self.bindings.fill(text).replace("\\r\\n", "\r\n")
        text = re.sub(r"<<(.*?)>>", lambda m: f"{{{len(m[1].encode())}+}}\r\n{m[1]}", text, flags=re.DOTALL)
        if text != "DONE":
            self.tag[peer] = f"t{self.tags}"
        self.peers[peer].send(self.tag[peer], text)

    async def expect(self, peer: int, text: str) -> None:
        expected = text.replace("\\r\\n", "\r\n")
        completion = re.match(r"(OK|NO|BAD)\b", expected)
        if completion:
            expected = f"{self.tag[peer]} {expected}..."
        client = self.peers[peer]

        def found() -> bool:
            for line in client.said:
                if self.bindings.matches(expected, line):
                    client.said.remove(line)
                    return True
            return False

        try:
            await client.until(found)
        except TimeoutError:
            raise AssertionError(f"no {expected!r} in {client.said}") from None
        if completion:
            for banned in self.banned[peer]:
                assert not any(self.bindings.matches(banned, line) for line in client.said), (banned, client.said)
            self.banned[peer].clear()
            client.said.clear()

    async def play(self, script: Script) -> None:
        for kind, connection, text in script.lines:
            match kind:
                case "C":
                    self.send(connection - 1, text)
                case "S":
                    await self.expect(connection - 1, text)
                case _:
                    self.banned[connection - 1].append(text)


async def begin(talk: Conversation, state: str) -> None:
    """Bring every connection into the state a script starts from."""
    for peer in range(len(talk.peers)):
        if state != "none":
            talk.send(peer, f"LOGIN {USER} {PASSWORD}")
            await talk.expect(peer, "OK")
        if state == "selected":
            talk.send(peer, "SELECT INBOX")
            await talk.expect(peer, "OK")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.mark.parametrize("door", ["memory", "tcp"])
@pytest.mark.parametrize("path", SCRIPTS, ids=[path.stem for path in SCRIPTS])
async def test_transcript(path: Path, door: str, store: Store, certificates: Path) -> None:
    script = read(path)
    await account(store, int(script.header.get("messages", "0")))
    folder = certificates if door == "tcp" else None
    connections, notify_s = int(script.header.get("connections", "1")), float(script.header.get("notify", "0"))
    async with world(store, connections, folder, notify_s) as peers:
        talk = Conversation(peers)
        await begin(talk, script.header.get("state", "none"))
        await talk.play(script)


# ---- how often Postgres is asked -------------------------------------------------------------------------------

# Statements, BEGIN and COMMIT included, that a command may cost in a session with INBOX selected. Each also pays the
# one look at the folder that its completion makes.
COSTS = (
    ("NOOP", 1),
    ("CHECK", 1),
    ("CAPABILITY", 1),
    ("FETCH 1:3 (FLAGS)", 1),
    ("UID FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE)", 1),
    ("FETCH 1 (BODYSTRUCTURE)", 1),
    ("FETCH 1:3 BODY.PEEK[HEADER.FIELDS (DATE FROM SUBJECT)]", 1),
    ("FETCH 1:3 BODY.PEEK[]", 2),
    ("FETCH 2 BODY[]", 3 + 1 + 4),  # which are unseen; begin, lock, change, commit
    ("FETCH 2 BODY[]", 2 + 1),
    ("STORE 1:3 +FLAGS (\\Flagged)", 5),
    ("STORE 1:3 -FLAGS.SILENT (\\Flagged)", 5),
    ("SEARCH UNSEEN", 1),
    ("SEARCH SUBJECT message", 1),
    ("SEARCH BODY hello", 2),
    ("STATUS INBOX (MESSAGES UNSEEN UIDNEXT)", 1),
    ('LIST "" *', 2),
    ('LIST "" * RETURN (STATUS (MESSAGES UNSEEN))', 2),
    ("APPEND Drafts <<Subject: x\r\n\r\nx\r\n>>", 5),  # folders, room, stage, append
    ("COPY 1:2 Archive", 9),
    ("UID MOVE 3 Trash", 8),
    ("EXPUNGE", 5),
    ("UNSELECT", 0),
    ("SELECT INBOX", 1),
    ("CREATE new", 8),
)


class Counting(Store):
    """A store that notes the statements of its driver calls; SQLAlchemy's events tell the others."""

    def __init__(self, url: str, pool: int) -> None:
        super().__init__(url, pool)
        self.asked: list[str] = []

    @asynccontextmanager
    async def driver(self, name: str) -> AsyncIterator[Any]:
        async with super().driver(name) as conn:
            yield Noting(conn, self.asked)


class Noting:
    def __init__(self, conn: Any, asked: list[str]) -> None:
        self.conn, self.asked = conn, asked

    def transaction(self) -> Any:
        self.asked += ["BEGIN", "COMMIT"]
        return self.conn.transaction()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.conn, name)

        def call(statement: str, *args: object) -> Any:
            self.asked.append(statement)
            return method(statement, *args)

        return call


async def test_a_look_at_a_large_folder_reads_only_what_changed(postgres_url: str, store: Store) -> None:
    """The planner, once it knows the tables, must not read the folder by its uids: every command ends with this."""
    account_id = await account(store, 20)
    folder = next(row for row in await queries.folders(store, account_id) if row.name == "INBOX")
    for _ in range(7):  # 20 messages become 2,560
        known = await queries.uids(store, account_id, folder.fid, 0, 1 << 31)
        async with store.begin("test.copies") as conn:
            await messages.copy(conn, account_id, folder.fid, known, folder.fid)
    async with store.driver("test.analyze") as conn:
        await conn.execute("VACUUM ANALYZE items, tombstones, folders")
        cn = await conn.fetchval("SELECT content_cn FROM folders WHERE fid = $1", folder.fid)
        await conn.execute(f"PREPARE look (bigint, bigint, bigint) AS {queries.CHANGES}")
        plan = await conn.fetch(f"EXPLAIN EXECUTE look({account_id}, {folder.fid}, {cn})")
    text = "\n".join(line for (line,) in plan)
    assert "items_modseq_idx" in text, text


async def test_how_many_statements_a_command_costs(postgres_url: str, store: Store) -> None:
    """A query in a loop, or one more round trip, shows here first."""
    await account(store, 3)
    counted = Counting(postgres_url, pool=2)
    asked = counted.asked
    listeners: dict[str, Callable[..., Any]] = {
        "before_cursor_execute": lambda _conn, _cursor, statement, *_: asked.append(statement),
        "begin": lambda _conn: asked.append("BEGIN"),
        "commit": lambda _conn: asked.append("COMMIT"),
    }
    for name, listener in listeners.items():
        event.listen(Engine, name, listener)
    try:
        async with world(counted, 1) as peers:
            talk = Conversation(peers)
            await begin(talk, "selected")
            for command, most in COSTS:
                asked.clear()
                talk.send(0, command)
                await talk.expect(0, "OK")
                assert len(asked) <= most, (command, asked)
    finally:
        for name, listener in listeners.items():
            event.remove(Engine, name, listener)
        await counted.close()
