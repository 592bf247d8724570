"""One connection to a remote server: a socket, TLS, and patience. It decides nothing about mail."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar, cast

from services.mxrouter.dialogue import Act, Exchange, Peer, Stage
from services.mxrouter.heard import REPLY_OCTETS, Replies

T = TypeVar("T")

_BLOCK: Final = 64 * 1024
# What a peer may say before we have read it: all replies of a large group, not a flood.
_UNREAD: Final = 4 * REPLY_OCTETS


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds that a server may take (RFC 5321 4.5.3.2)."""

    connect_s: float = 30.0
    command_s: float = 300.0
    data_s: float = 120.0
    block_s: float = 180.0
    message_s: float = 600.0
    quit_s: float = 5.0

    def for_reply(self, stage: Stage) -> float:
        """How long a whole reply may take, from when it is awaited."""
        match stage:
            case Stage.DATA | Stage.STARTTLS:
                return self.data_s
            case Stage.MESSAGE:
                return self.message_s
            case Stage.QUIT:
                return self.quit_s
            case _:
                return self.command_s


class TlsFailed(Exception):
    """The handshake came to nothing. `result` is the name that TLS-RPT has for it (RFC 8460 4.3)."""

    def __init__(self, result: str, text: str) -> None:
        super().__init__(text)
        self.result = result


class Link(asyncio.Protocol):
    """A connection that acts are performed over, one at a time."""

    def __init__(self, host: str, patience: Patience) -> None:
        """`host`: whose connection it is, for those who read outcomes."""
        self.host = host
        self.peer = Peer()
        self.reset = False  # the last transaction must be undone before the next
        self.trusted = False  # TLS, and the server proved who it is
        self.messages = 0
        self._patience = patience
        self._replies = Replies()
        self._transport: asyncio.Transport | None = None
        self._gone = ""
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods of asyncio's and none of its classes.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._replies.feed(data)
        if self._replies.pending > _UNREAD:
            self._end("the peer talks without end")
            self.abort()
        self._news.set()

    def eof_received(self) -> None:
        self._end("the peer closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"the connection was lost: {exc}" if exc else "the connection was lost")
        self._transport = None
        self._room.set()

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    # What the client calls

    @property
    def alive(self) -> bool:
        """Whether nothing speaks against one more act."""
        return not self._gone and not self._replies.pending

    async def perform(self, act: Act[T]) -> T:
        """What comes of the act. Raises what the act raises. Cancelled, the connection is cut."""
        exchange = Exchange(act, self._replies)
        try:
            while (stage := exchange.stage) is not None:
                unsent = True
                why = await self._send(exchange.take())
                if not why:
                    unsent = False
                    why = await self._listen(exchange, self._patience.for_reply(stage))
                if why:
                    self._end(why)
                    # What was said before the end, be it in the middle of our message, is an answer.
                    exchange.hear()
                    exchange.fail(why, unsent)
            return exchange.result
        except BaseException:
            self.abort()
            raise

    async def secure(self, context: ssl.SSLContext, server_hostname: str) -> ssl.SSLObject:
        """Begin TLS. Raises TlsFailed; the connection is of no use then."""
        if self._replies.pending:
            # What was said in the clear must not be taken for a reply that came over TLS.
            raise TlsFailed("validation-failure", "the peer spoke before TLS had begun")
        if self._transport is None or self._gone:
            raise TlsFailed("validation-failure", self._gone)
        try:
            transport = await asyncio.get_running_loop().start_tls(
                self._transport,
                self,
                context,
                server_hostname=server_hostname,
                ssl_handshake_timeout=self._patience.data_s,
            )
        except (OSError, TimeoutError, ValueError) as error:
            raise TlsFailed(_result(error), f"TLS: {_words(error)}") from error
        if transport is None:
            raise TlsFailed("validation-failure", "the connection was lost in the TLS handshake")
        self._transport = transport
        return cast(ssl.SSLObject, transport.get_extra_info("ssl_object"))

    def abort(self) -> None:
        """Cut the connection. Safe to call twice."""
        self._end("the connection was cut")
        if self._transport is not None:
            self._transport.abort()

    # ---- octets ------------------------------------------------------------------------------------------------

    def _end(self, why: str) -> None:
        self._gone = self._gone or why
        self._news.set()

    async def _send(self, parts: Sequence[bytes]) -> str:
        """Write it all; why that was not possible, empty when it was."""
        for part in parts:
            view = memoryview(part)
            for at in range(0, len(view), _BLOCK):
                if self._transport is None or self._gone:
                    return self._gone
                self._transport.write(view[at : at + _BLOCK])
                if self._room.is_set():
                    continue
                try:
                    async with asyncio.timeout(self._patience.block_s):
                        await self._room.wait()
                except TimeoutError:
                    return f"nothing could be sent for {self._patience.block_s:g} s"
        return ""

    async def _listen(self, exchange: Exchange[T], patience_s: float) -> str:
        """Wait for one more reply; why none will come, empty when it came."""
        seen = exchange.heard
        try:
            async with asyncio.timeout(patience_s):
                while True:
                    exchange.hear()
                    if exchange.heard > seen or exchange.stage is None:
                        return ""
                    if self._gone:
                        return self._gone
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return f"nothing heard for {patience_s:g} s"


def certificates(tls: ssl.SSLObject) -> list[bytes]:
    """The chain as the peer sent it, DER, leaf first."""
    leaf = tls.getpeercert(binary_form=True)
    if hasattr(tls, "get_unverified_chain"):
        return [bytes(each) for each in tls.get_unverified_chain()]
    # Before Python 3.13 the chain has no public name; without it DANE could not know a CA (usage 2).
    inner = getattr(tls, "_sslobj", None)
    chain = inner.get_unverified_chain() if inner is not None else None
    return [ssl.PEM_cert_to_DER_cert(each.public_bytes()) for each in chain] if chain else [leaf] if leaf else []


_RESULTS: Final = {10: "certificate-expired", 62: "certificate-host-mismatch", 64: "certificate-host-mismatch"}
_NOT_TRUSTED: Final = frozenset({18, 19, 20, 21})  # self-signed, or by nobody we know


def _result(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        untrusted = "certificate-not-trusted" if error.verify_code in _NOT_TRUSTED else "validation-failure"
        return _RESULTS.get(error.verify_code, untrusted)
    return "validation-failure"


def _words(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return str(error.reason or error)
    return str(error) or type(error).__name__
