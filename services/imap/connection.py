"""One client's conversation over a stream: octets to the framer, requests to the session, responses to the client.

Decides nothing about mail. Lines of IDLE and SASL come through the same framer as requests.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass

from services.core.auth.login import Client
from services.core.stream import Injected, Stream
from services.core.tls import Tls
from services.imap.feature import State
from services.imap.session import Services, Session
from services.imap.wire.cursor import BadSyntax
from services.imap.wire.encode import encode
from services.imap.wire.framer import REQUEST_OCTETS, BadFrame, Frame, Framer, NeedLiteral, Request, TooLong
from services.imap.wire.responses import Bad, Bye, Code, Continue, No, Response

CHUNK_OCTETS = 64 << 10  # written at once, before the handler waits for a slow client
STRANGER_OCTETS = 64 << 10  # of literals in one request before login
MOST_FAULTS = 20  # in a row: whoever only ever errs is no mail client

_BROKEN = No("Something went wrong here.", Code("SERVERBUG"))  # RFC 5530 3
_GOING = Bye("The server is going down. Connect again.", Code("UNAVAILABLE"))


@dataclass(frozen=True, slots=True)
class Terms:
    """What all connections of the service share."""

    services: Services
    tls: Tls | None
    login_timeout_s: float
    idle_timeout_s: float


class Connection:
    """The server side of one connection; the `Channel` of its session."""

    __slots__ = (
        "_dismissed",
        "_faults",
        "_framer",
        "_out",
        "_out_octets",
        "_stream",
        "_terms",
        "_upgrade",
        "_waiting",
        "served",
        "session",
    )

    def __init__(self, terms: Terms, stream: Stream) -> None:
        self._terms, self._stream = terms, stream
        self._framer = Framer(request_octets=STRANGER_OCTETS)
        self._out: list[bytes] = []
        self._out_octets = self._faults = self.served = 0
        self._waiting = self._dismissed = self._upgrade = False
        self.session = Session(terms.services, Client(stream.peer, "imap"), self)

    async def serve(self) -> None:
        """Greet the client and serve its requests, in order, until one of us ends it.

        Raises `ConnectionError` when the client is gone, `TimeoutError` when it takes nothing or fails to make TLS.
        """
        self._put(encode(self.session.greeting(), ""))
        while (frame := await self._next()) is not None:
            await self._serve(frame)
            if self._settle():
                break
            if self._upgrade:
                await self._start_tls()
        self._flush()

    def dismiss(self) -> None:
        """Say goodbye: at once if the client is being waited for, else when the running command is done."""
        self._dismissed = True
        if self._waiting:
            self._bye(_GOING)
            self._stream.close()

    # ---- what the session may ask (Channel) --------------------------------------------------------------------

    @property
    def tls(self) -> bool:
        """Whether nobody can listen."""
        return self._stream.tls

    async def read_line(self) -> bytes:
        """The client's next line without its end. Raises `BadSyntax` over the limit, `ConnectionResetError` at the end.

        Cancelling it loses no octet. Only one may wait.
        """
        while (line := self._framer.next_line()) is None:
            if not await self._more(self._patience_s):
                raise ConnectionResetError
        if isinstance(line, TooLong):
            raise BadSyntax(f"A line has at most {line.limit} octets", line.limit)
        return line

    async def write(self, response: Response) -> None:
        """Send a response that belongs to no tag; waits while the client is slow."""
        await self._write(response, "*")

    def upgrade(self) -> None:
        """Start TLS once the running command has been answered. Raises `BadSyntax` where that may not be."""
        if self.tls or self._terms.tls is None:
            raise BadSyntax("TLS cannot be started", 0)
        if self._framer.buffered:
            # RFC 9051 6.2.1, RFC 3207 6: what came in plain text must not count as said under TLS.
            raise BadSyntax("Nothing may follow STARTTLS before the handshake", 0)
        self._upgrade = True

    # ---- requests ----------------------------------------------------------------------------------------------

    async def _next(self) -> Frame | None:
        """The next frame; None at the end, the client told why if it was ours."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._patience_s
        while (frame := self._framer.next()) is None:
            # A stranger is heard only by whole requests, or an octet a minute would hold a connection for ever.
            stranger = self.session.state is State.NOT_AUTHENTICATED
            if not await self._more(max(0.0, deadline - clock()) if stranger else self._patience_s):
                return None
        return frame

    async def _more(self, timeout_s: float) -> bool:
        """Feed the framer with what comes; False at the end, also when nothing came for so long."""
        if self._dismissed:
            self._bye(_GOING)
            return False
        self._waiting = True
        try:
            octets = await self._stream.read(timeout_s)
        except TimeoutError:
            self._bye(Bye("Idle for too long."))
            return False
        finally:
            self._waiting = False
        if not octets or self._dismissed:
            return False
        self._framer.feed(octets)
        return True

    @property
    def _patience_s(self) -> float:
        """RFC 9051 5.4: the autologout timer."""
        stranger = self.session.state is State.NOT_AUTHENTICATED
        return self._terms.login_timeout_s if stranger else self._terms.idle_timeout_s

    async def _serve(self, frame: Frame) -> None:
        match frame:
            case Request():
                await self._execute(frame)
            case NeedLiteral():
                await self._offer(frame)
            case TooLong(tag, limit):
                self._fault(tag, f"A request has at most {limit} octets.", Code("TOOBIG"))
            case BadFrame(tag, text):
                self._fault(tag, text)

    async def _execute(self, request: Request) -> None:
        failed = False
        self.served += 1
        try:
            async with aclosing(self.session.execute(request)) as responses:
                async for response in responses:
                    failed = isinstance(response, Bad)
                    await self._write(response, request.tag)
        except (ConnectionError, TimeoutError):
            raise
        except Exception:
            failed = True
            self._terms.services.log.exception("command failed", command=request.name)
            await self._write(_BROKEN, request.tag)
        self._faults = self._faults + 1 if failed else 0

    async def _offer(self, need: NeedLiteral) -> None:
        try:
            refusal = await self.session.offer(need)
        except Exception:
            self._terms.services.log.exception("offer failed", command=need.request.name)
            refusal = _BROKEN
        if refusal is not None:
            self._framer.refuse()
            await self._write(refusal, need.request.tag)
            return
        self._framer.accept()
        if need.sync:
            await self.write(Continue("Ready"))

    def _fault(self, tag: str | None, text: str, code: Code | None = None) -> None:
        self._faults += 1
        self._put(encode(Bad(text, code, untagged=tag is None), tag or ""))

    def _settle(self) -> bool:
        """Between two requests: True if this was the last one. Whoever has logged in is trusted with more octets."""
        if self.session.state is State.LOGOUT:
            return True
        if self._faults > MOST_FAULTS:
            self._bye(Bye("Too many errors."))
            return True
        if self.session.state is not State.NOT_AUTHENTICATED:
            self._framer.request_octets = max(
                REQUEST_OCTETS, self._terms.services.message_size + self._framer.line_octets
            )
        return False

    async def _start_tls(self) -> None:
        self._upgrade = False
        self._flush()
        assert self._terms.tls is not None
        try:
            await self._stream.start_tls(self._terms.tls())
        except Injected as error:
            raise ConnectionResetError from error

    # ---- output ------------------------------------------------------------------------------------------------

    async def _write(self, response: Response, tag: str) -> None:
        self._put(encode(response, tag, utf8=self.session.dialect.utf8))
        self._waiting = True  # for a client that takes nothing; otherwise drain returns at once
        try:
            await self._stream.drain(self._terms.idle_timeout_s)
        finally:
            self._waiting = False

    def _put(self, octets: bytes) -> None:
        """Queue octets; what is said in one turn of the loop leaves in one piece."""
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(octets)
        self._out_octets += len(octets)
        if self._out_octets >= CHUNK_OCTETS:
            self._flush()

    def _flush(self) -> None:
        if self._out:
            self._stream.write(self._out[0] if len(self._out) == 1 else b"".join(self._out))
            self._out = []
            self._out_octets = 0

    def _bye(self, bye: Bye) -> None:
        self._put(encode(bye, ""))
        self._flush()
