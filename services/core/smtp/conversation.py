"""What commands work on: a conversation, and the channel it is held over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from services.core.smtp import replies
from services.core.smtp.hooks import Hooks
from services.core.smtp.options import Options
from services.core.smtp.replies import Reply
from services.core.smtp.session import Session, Tls
from services.core.smtp.wire import Event
from services.core.telemetry import Logger


class Ended(Exception):
    """The conversation cannot go on; `farewell` is said if anyone is left to hear it."""

    farewell: Reply | None = None


class Gone(Ended):
    """The peer has left."""


class TimedOut(Ended):
    """The peer was silent for too long (RFC 5321 4.5.3.2)."""

    farewell = replies.TIMED_OUT


class Draining(Ended):
    """The service stops, and this session is not in the middle of a message."""

    farewell = replies.SHUTTING_DOWN


class Channel(Protocol):
    """Where octets come from and go to. All reading raises Ended."""

    def send(self, octets: bytes) -> None:
        """Say this before the next wait; what is said in between goes out with it (RFC 2920 3.2)."""
        ...

    async def line(self, drainable: bool = True) -> Event:
        """The next command line. `drainable`: a drain may end the session here."""
        ...

    async def message(self, limit: int) -> Event:
        """Everything up to CRLF . CRLF."""
        ...

    async def chunk(self, size: int, keep: bool) -> Event:
        """The next `size` octets."""
        ...

    @property
    def unread(self) -> int:
        """Octets that have come and were not asked for yet."""
        ...

    @property
    def tls_possible(self) -> bool:
        """Whether `start_tls` can be called."""
        ...

    def discard_unread(self) -> None:
        """Forget them."""
        ...

    async def start_tls(self, ready: Reply) -> Tls:
        """Say `ready`, then let the peer begin the handshake."""
        ...

    def progressed(self) -> None:
        """The session has done something of use: its idle time begins anew."""
        ...


@dataclass(slots=True)
class Conversation:
    """What commands work on."""

    hooks: Hooks
    options: Options
    session: Session
    channel: Channel
    log: Logger
    over: bool = False

    def say(self, reply: Reply) -> None:
        """Send one reply and keep count of those that refuse."""
        self.channel.send(reply.wire)
        if reply.permanent:
            self.session.errors += 1
            if self.session.errors > self.options.max_errors and not self.over:
                self.channel.send(replies.TOO_MANY_ERRORS.wire)
                self.over = True
        elif reply.code == replies.TIMED_OUT.code:
            # RFC 5321 4.2.2: after 421, whoever said it, the channel closes.
            self.over = True

    def report(self, doing: str, error: Exception) -> None:
        """An error of ours, with what an operator needs to find it."""
        self.log.error(
            "smtp session failed", doing=doing, peer=self.session.peer.host, helo=self.session.helo, exc_info=error
        )


@dataclass(frozen=True, slots=True)
class Command:
    """One verb. `run` gives the reply, or None when it has said all there is to say."""

    verb: str
    syntax: str
    run: Callable[[Conversation, str], Awaitable[Reply | None]]
    longest: int = 512  # octets of the line with its CRLF (RFC 5321 4.5.3.1.4)
    before_tls: bool = False  # allowed where TLS is required and not there yet (RFC 3207 4)
