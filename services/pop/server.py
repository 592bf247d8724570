"""Sockets to sessions: lines in, replies out, TLS and timeouts. Decides nothing about mail."""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from binascii import Error as BadBase64
from collections import deque

from services.core.auth.login import Cancelled, Client, ExchangeBroken
from services.core.stream import Injected, Stream
from services.core.telemetry import Logger
from services.core.tls import Tls
from services.pop.commands import execute
from services.pop.session import Session, Shared, State
from services.pop.wire import Framer, TooLong, err, ok, parse

_ERRORS_ALLOWED = 20  # before a login; a peer that errs more often is no mail client
_SLICE = 256 << 10  # of a reply, written at once


class Ended(Exception):
    """The peer closed the connection, or we did."""


class Connections:
    """Serves every accepted stream; the lifetime of one call is the lifetime of one session."""

    def __init__(
        self, shared: Shared, tls: Tls | None, log: Logger, *, login_timeout_s: float, idle_timeout_s: float
    ) -> None:
        self._shared, self._tls, self._log = shared, tls, log
        self._login_s, self._idle_s = login_timeout_s, idle_timeout_s
        self.waiting: set[Lines] = set()
        self.draining = False

    async def serve(self, stream: Stream) -> None:
        """Talk POP3 with one peer until it quits, leaves, or falls silent (RFC 1939 3: no update then)."""
        lines = Lines(stream, self)
        client = Client(stream.peer, "pop")
        session = Session(self._shared, client, lines.ask, tls=stream.tls, stls=self._tls is not None)
        try:
            stream.write(ok("Posta ready"))
            await self._talk(session, stream, lines)
        except (TimeoutError, Ended):
            return  # RFC 1939 3: who falls silent is cut off without a word
        except (TooLong, Injected) as error:
            stream.write(err("Line too long" if isinstance(error, TooLong) else "Plain text behind STLS"))
        finally:
            if session.login is not None:
                self._report(session, session.login.account_id)
            await session.close()

    def drain(self) -> None:
        """Send away who waits; who is in the middle of a command gets its reply first."""
        self.draining = True
        for lines in list(self.waiting):
            lines.dismiss()

    async def _talk(self, session: Session, stream: Stream, lines: Lines) -> None:
        errors = 0
        while not session.over:
            started = session.state is State.TRANSACTION
            lines.timeout_s = self._idle_s if started else self._login_s
            reply = await execute(session, parse(await lines.next()))
            if session.begins_tls:
                lines.must_be_empty()
            await self._send(stream, reply)
            if session.begins_tls and self._tls is not None:
                await stream.start_tls(self._tls())
                session.secured()
            if not started and reply.startswith(b"-"):
                errors += 1
            if errors >= _ERRORS_ALLOWED:
                stream.write(err("Too many errors"))
                break

    async def _send(self, stream: Stream, reply: bytes) -> None:
        for at in range(0, len(reply), _SLICE):
            stream.write(reply[at : at + _SLICE])  # a slice that is the whole costs nothing
            await stream.drain(self._idle_s)

    def _report(self, session: Session, account: int) -> None:
        self._log.info(
            "session",
            account=account,
            tls=session.tls,
            quit=session.over,
            served=session.served,
            served_octets=session.served_octets,
            deleted=session.deleted,
        )


class Lines:
    """The lines of one stream, those of SASL exchanges included."""

    __slots__ = ("_dismissed", "_framer", "_lines", "_owner", "_stream", "timeout_s")

    def __init__(self, stream: Stream, owner: Connections) -> None:
        self._stream, self._owner, self._framer = stream, owner, Framer()
        self._lines: deque[bytes] = deque()
        self._dismissed = False
        self.timeout_s = 60.0

    async def next(self) -> bytes:
        """The next line. Raises `Ended`, `TooLong`, and `TimeoutError` when it is not whole in time."""
        if not self._lines:
            self._owner.waiting.add(self)
            try:
                await self._more()
            finally:
                self._owner.waiting.discard(self)
        return self._lines.popleft()

    async def _more(self) -> None:
        if self._owner.draining:
            self.dismiss()
        clock = asyncio.get_running_loop().time
        ends = clock() + self.timeout_s
        while not self._lines:
            octets = await self._stream.read(max(0.0, ends - clock()))
            # What came in while we said good-bye is not done: the client was told that nothing was.
            if not octets or self._dismissed:
                raise Ended
            self._lines.extend(self._framer.feed(octets))

    def dismiss(self) -> None:
        """End the connection while its next line is being waited for."""
        if not self._dismissed:
            self._dismissed = True
            self._stream.write(err("The server is going down, nothing was deleted", "SYS/TEMP"))
            self._stream.close()

    def must_be_empty(self) -> None:
        """Raise `Injected` if anything has been taken from the stream beyond the last line."""
        if self._lines or self._framer.rest:
            raise Injected

    async def ask(self, challenge: bytes) -> bytes:
        """Send a SASL challenge and return the answer (RFC 5034 4); raises `Cancelled`, `ExchangeBroken`."""
        self._stream.write(b"+ " + b64encode(challenge) + b"\r\n")
        answer = await self.next()
        if answer == b"*":
            raise Cancelled
        try:
            return b64decode(answer, validate=True)
        except (BadBase64, ValueError) as error:
            raise ExchangeBroken("not base64") from error
