"""One client's conversation: requests in, responses out. Knows the store, never a socket.

Invariants
- A handler is an async generator of responses; its last one (`Ok`, `No`, `Bad`) completes the command. Between the two
  the session looks at the folder and tells what happened in it: completion is the moment every client listens. Only
  commands that merely read (`LISTENING`) rely on hints for that: NOOP and IDLE never do.
- Nothing is yielded while a store connection is held.
- What goes wrong below becomes a response here, by one table (`_REPLIES`), and nowhere else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from services.core.auth.authenticator import Authenticator
from services.core.auth.login import (
    AuthError,
    AuthFailed,
    AuthThrottled,
    AuthUnavailable,
    Cancelled,
    Client,
    ExchangeBroken,
    Login,
    MechanismUnknown,
)
from services.core.auth.sasl import offered
from services.core.foldername import BadName
from services.core.ids import AccountId, Fid
from services.core.store.engine import Store, StoreUnavailable
from services.core.store.folders import FolderExists, NoSuchFolder
from services.core.store.messages import FlagChange, Stored, store_flags
from services.core.store.numbers import LIMIT, NoSuchAccount
from services.core.telemetry import Logger
from services.core.training import Teacher
from services.imap import queries, reading
from services.imap.feature import Command, Registry, State
from services.imap.notifier import Notifier, Watch
from services.imap.queries import FolderRow
from services.imap.tree import Tree
from services.imap.view import Changes, Dialect, OutOfView, Spans, View
from services.imap.wire.cursor import BadSyntax, Cursor
from services.imap.wire.framer import NeedLiteral, Request
from services.imap.wire.responses import Bad, Bye, Code, No, Ok, Raw, Response
from services.imap.wire.sequence import SequenceSet

# RFC 9051 7.5.1: while these run, no message may lose its number. Their UID forms do not speak in numbers.
KEEP_NUMBERS = frozenset({"FETCH", "STORE", "SEARCH"})

# What these tell is as new as a look would be.
JUST_OPENED = frozenset({"SELECT", "EXAMINE"})

# After these the folder is looked at only when there was a hint: half of what they cost would be the look.
LISTENING = frozenset({"FETCH", "UID FETCH", "SEARCH", "UID SEARCH", "STATUS"})

ARGUMENT_OCTETS = 65_536  # of a literal that is no message


class Refused(Exception):
    """A handler's way to end its command with NO or BAD."""

    def __init__(self, reply: No | Bad) -> None:
        super().__init__(reply.text)
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Services:
    """What every session of this process shares."""

    store: Store
    authenticator: Authenticator
    notifier: Notifier
    log: Logger
    registry: Registry
    offers: Mapping[str, Callable[[Session, NeedLiteral], Awaitable[None]]]
    message_size: int
    teacher: Teacher
    plaintext_auth: bool = False
    starttls: bool = False  # there is a certificate to start TLS with
    idle_notify_s: float = 0.0  # an idling client hears something at least so often; 0: only news


class Channel(Protocol):
    """What a session may ask of its connection."""

    @property
    def tls(self) -> bool:
        """Whether nobody can listen."""

    async def read_line(self) -> bytes:
        """The client's next line, without its end: an answer in a SASL exchange, or DONE."""

    async def write(self, response: Response) -> None:
        """Send one response now, in the middle of a command."""

    def upgrade(self) -> None:
        """Start TLS once the running command has been answered."""


@dataclass(slots=True)
class Selected:
    """The selected folder."""

    fid: Fid
    path: str
    view: View
    read_only: bool
    role: str | None = None


# Domain errors as replies; the first that fits.
_REPLIES: tuple[tuple[type[Exception], No | Bad], ...] = (
    (StoreUnavailable, No("The mail store cannot be reached. Try again.", Code("UNAVAILABLE"))),
    (FolderExists, No("There is a mailbox of that name.", Code("ALREADYEXISTS"))),
    (NoSuchFolder, No("There is no such mailbox.", Code("NONEXISTENT"))),
    (NoSuchAccount, No("The account or the mailbox is gone.", Code("NONEXISTENT"))),
    (Cancelled, Bad("Cancelled.")),  # RFC 9051 6.2.2
    (MechanismUnknown, No("That mechanism is not offered here.", Code("CANNOT"))),
    (AuthFailed, No("Authentication failed.", Code("AUTHENTICATIONFAILED"))),
    (AuthThrottled, No("Too many failed logins. Wait and try again.", Code("LIMIT"))),
    (AuthUnavailable, No("Logins cannot be checked now. Try again.", Code("UNAVAILABLE"))),
    (OutOfView, Bad("There is no message of that number.")),
)


def reply_to(error: Exception) -> No | Bad | None:
    """What to answer a command that ended with this error; None for one that is our own fault."""
    if isinstance(error, Refused):
        return error.reply
    if isinstance(error, BadName):
        return No(str(error), Code("CANNOT"))
    if isinstance(error, BadSyntax | ExchangeBroken):
        return Bad(str(error))
    return next((reply for kind, reply in _REPLIES if isinstance(error, kind)), None)


class Session:
    """One client. Made by the connection, which hands it each request and writes what `execute` yields."""

    def __init__(self, services: Services, client: Client, channel: Channel) -> None:
        self.services = services
        self.client = client
        self.channel = channel
        self.state = State.NOT_AUTHENTICATED
        self.login: Login | None = None
        self.opened: Selected | None = None
        self.enabled: set[str] = set()
        self.dialect = Dialect()
        self.saved: list[int] = []  # what "$" stands for (RFC 5182)
        self.wake = asyncio.Event()
        self.fresh = False  # a handler has brought the client up to date already
        self.watch: Watch | None = None

    # ---- who and where ----------------------------------------------------------------------------------------

    @property
    def store(self) -> Store:
        """The mail store."""
        return self.services.store

    @property
    def account_id(self) -> AccountId:
        """Whose mail this is; only after login."""
        assert self.login is not None
        return self.login.account_id

    @property
    def selected(self) -> Selected:
        """The selected folder; only in the selected state."""
        assert self.opened is not None
        return self.opened

    @property
    def source(self) -> reading.Source:
        """The selected folder as FETCH reads it."""
        return reading.Source(self.store, self.account_id, self.selected.fid, self.selected.view)

    def writable(self) -> Selected:
        """The selected folder; refuses when it was opened with EXAMINE."""
        if self.selected.read_only:
            raise Refused(No("The mailbox was opened read-only.", Code("READ-ONLY")))
        return self.selected

    async def logged_in(self, login: Login) -> None:
        """Become that user's session."""
        self.login = login
        self.state = State.AUTHENTICATED
        self.watch = await self.services.notifier.watch(login.account_id, self.wake.set)

    def enable(self, name: str) -> None:
        """Speak an extension's dialect from now on; CONDSTORE also by using it (RFC 7162 3.1)."""
        self.enabled.add(name)
        if name == "QRESYNC":
            self.enabled.add("CONDSTORE")  # RFC 7162 3.2.3
        self.dialect = Dialect(
            modseq="CONDSTORE" in self.enabled,
            vanished="QRESYNC" in self.enabled,
            uidonly="UIDONLY" in self.enabled,
            utf8="UTF8=ACCEPT" in self.enabled or "IMAP4REV2" in self.enabled,
        )

    async def tree(self) -> Tree:
        """The account's folders as they are now."""
        return Tree(await queries.folders(self.store, self.account_id))

    async def folder(self, path: str, *, create: bool = False) -> FolderRow:
        """The selectable folder of that name; refuses otherwise, with TRYCREATE where CREATE would help."""
        row = (await self.tree()).find(path)
        if row is None or not row.selectable:
            # RFC 9051 6.3.12, 6.4.7: only where the command's next attempt could then succeed.
            raise Refused(No("There is no such mailbox.", Code("TRYCREATE" if create else "NONEXISTENT")))
        return row

    # ---- the selected folder ----------------------------------------------------------------------------------

    def open(self, selected: Selected) -> None:
        """Be in that folder from now on."""
        self.opened = selected
        self.state = State.SELECTED
        self.saved = []
        self.wake.set()  # no hint came for this folder yet
        if self.watch is not None:
            self.watch.fid = selected.fid

    async def leave(self) -> None:
        """Be in no folder. What this session was told of is recent to nobody else."""
        opened, self.opened = self.opened, None
        if opened is None:
            return
        self.state = State.AUTHENTICATED
        if self.watch is not None:
            self.watch.fid = None
        view = opened.view
        if not opened.read_only and view.uidnext > view.claimed:
            await queries.claim_recent(self.store, self.account_id, opened.fid, view.uidnext)

    async def view(self) -> View:
        """The view, its list of uids loaded."""
        selected = self.selected
        view = selected.view
        if view.uids is None:
            view.load(await queries.uids(self.store, self.account_id, selected.fid, view.cn, view.uidnext))
        return view

    def spans(self, messages: SequenceSet, *, by_uid: bool) -> Spans:
        """The positions in the loaded view that a set names; "$" is what the last SEARCH saved (RFC 5182)."""
        view = self.selected.view
        return view.spans_of(self.saved) if messages.saved else view.spans(messages.ranges, by_uid=by_uid)

    async def changes(self) -> Changes | None:
        """What happened in the selected folder since its view; None: the folder is gone."""
        selected = self.selected
        view = selected.view
        return await queries.changes(self.store, self.account_id, selected.fid, view.cn, view.uidnext)

    async def sync(self, *, expunges: bool = True) -> list[Response]:
        """Bring the client up to date with the selected folder. One statement when nothing happened."""
        self.wake.clear()
        changes = await self.changes()
        if changes is None:
            # RFC 2180 3.3: a client whose mailbox vanished is best sent away.
            self.opened, self.state = None, State.LOGOUT
            return [Bye("The selected mailbox was deleted.")]
        return await self.tell(changes, expunges=expunges)

    async def tell(self, changes: Changes, *, expunges: bool) -> list[Response]:
        """Move the view on to these changes; what the client is told of it."""
        view = self.selected.view
        if changes.cn == view.cn and not view.gone:
            return []
        if view.needs_uids(changes, self.dialect, expunges=expunges):
            await self.view()
        out = view.apply(changes, self.dialect, expunges=expunges)
        return [*self.news(), *out]

    def news(self) -> list[Response]:
        """FLAGS again, when keywords were met that the client has not heard of (RFC 9051 7.3.5)."""
        lines = self.selected.view.keywords.news()
        return [Raw(lines)] if lines else []

    async def change_flags(self, uids: Sequence[int], change: FlagChange, *, unchanged_since: int = LIMIT) -> Stored:
        """Change flags of messages of the selected folder, and tell everybody else."""
        fid = self.writable().fid
        stored = await store_flags(self.store, self.account_id, fid, uids, change, unchanged_since=unchanged_since)
        self.wake.set()
        self.told(fid, stored.cn)
        return stored

    def told(self, fid: Fid, cn: int) -> None:
        """Let everybody else know that a folder (0: the list of folders) was changed by this session."""
        self.services.notifier.tell(self.account_id, fid, cn, but=self.watch)

    async def placed(self, into: FolderRow, uids: Sequence[int]) -> None:
        """Pass on what it teaches the filters that messages of the selected folder now lie in `into` as well."""
        await self.services.teacher.placed(self.account_id, (self.selected.role, into.role), into.fid, uids)

    # ---- capabilities -----------------------------------------------------------------------------------------

    @property
    def may_login(self) -> bool:
        """Whether a password may be sent over this connection."""
        return self.channel.tls or self.services.plaintext_auth

    def capabilities(self) -> tuple[str, ...]:
        """What CAPABILITY answers now (RFC 9051 6.1.1)."""
        names = self.services.registry.capabilities
        if self.state is not State.NOT_AUTHENTICATED:
            return names
        mechanisms = offered(tls=self.channel.tls, plaintext_auth=self.services.plaintext_auth)
        extra = [f"AUTH={name}" for name in mechanisms]
        if self.services.starttls and not self.channel.tls:
            extra.append("STARTTLS")
        if not self.may_login:
            extra.append("LOGINDISABLED")  # RFC 9051 6.2.3
        return (*names, *extra)

    def greeting(self) -> Response:
        """The first line the client sees."""
        return Ok("Posta is ready.", Code("CAPABILITY", " ".join(self.capabilities())), untagged=True)

    # ---- requests ---------------------------------------------------------------------------------------------

    async def execute(self, request: Request) -> AsyncGenerator[Response, None]:
        """The responses to one request, its completion last. Errors of our own come through."""
        try:
            command, args = self._read(request)
        except (Refused, BadSyntax, AuthError) as error:
            yield reply_to(error) or Bad("That cannot be read.")
            return
        completion: Response | None = None
        self.fresh = command.name in JUST_OPENED
        try:
            async with aclosing(command.run(self, args)) as responses:
                async for response in responses:
                    if isinstance(response, Ok | No | Bad) and not response.untagged:
                        completion = response
                        break
                    yield response
        except Exception as error:
            completion = reply_to(error)
            if completion is None:
                raise
        if self._owes_a_look(command):
            for response in await self.caught_up(expunges=command.name not in KEEP_NUMBERS):
                yield response
        if completion is not None:
            yield completion

    async def offer(self, need: NeedLiteral) -> No | Bad | None:
        """Why the client should not send the literal it announced; None: it may."""
        try:
            command = self._allowed(need.request)
            hook = self.services.offers.get(command.name)
            if hook is not None:
                await hook(self, need)
            elif need.size > ARGUMENT_OCTETS:
                raise Refused(Bad(f"An argument has at most {ARGUMENT_OCTETS} octets."))
        except (Refused, StoreUnavailable) as error:
            return reply_to(error)
        return None

    def _read(self, request: Request) -> tuple[Command, object]:
        command = self._allowed(request)
        return command, command.parse(Cursor(request, utf8=self.dialect.utf8))

    def _allowed(self, request: Request) -> Command:
        command: Command | None = self.services.registry.commands.get(request.name)
        if command is None:
            raise Refused(Bad("There is no such command."))
        if self.state not in command.states:
            raise Refused(Bad("Not in this state."))
        return command

    def _owes_a_look(self, command: Command) -> bool:
        if self.state is not State.SELECTED or self.fresh:
            return False
        return self.wake.is_set() or command.name not in LISTENING

    async def caught_up(self, *, expunges: bool) -> list[Response]:
        """As `sync`, but a store that is away has no news rather than an error."""
        try:
            return await self.sync(expunges=expunges)
        except StoreUnavailable:
            return []

    async def close(self) -> None:
        """The client is gone: leave the folder and listen no more. Safe to call twice."""
        try:
            await self.leave()
        except StoreUnavailable as error:
            self.services.log.debug("recent mark not moved", reason=str(error))
        if self.watch is not None:
            await self.watch.close()
            self.watch = None
