"""One accepted connection as bytes in and bytes out, and the listener that accepts it. Decides nothing.

Under uvloop an idle connection here costs a few KiB: there is no read buffer and no task beyond the one that serves it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import cast

from services.core.crowd import Limits
from services.core.ends import Ends
from services.core.reception import Preamble, Reception, listen
from services.core.telemetry import Logger
from services.core.tls import Tls

Serve = Callable[["Stream"], Awaitable[None]]

_HIGH = 256 << 10  # octets read ahead of whoever serves, before the peer is made to wait
_UNSENT = 128 << 10  # octets written and not taken by the peer, before `drain` waits; the loop's own for TLS is 512 KiB
_HANDSHAKE_S = 30.0
_LINGER_S = 30.0  # what a closed connection has left to send is given up after that


class Injected(Exception):
    """The peer sent plain text behind its STARTTLS; nothing of it may count after the handshake (RFC 3207 6)."""


class Stream(asyncio.Protocol):
    """The server side of one connection."""

    __slots__ = (
        "_arrived", "_deadline", "_eof", "_held", "_resumed", "_timer", "_transport", "_waiter", "peer",
        "tls",
    )  # fmt: skip

    def __init__(self, peer: str, *, tls: bool = False) -> None:
        self._transport: asyncio.Transport | None = None
        self._arrived: list[bytes] = []
        self._held = 0
        self._eof = False
        self._waiter: asyncio.Future[None] | None = None
        self._resumed: asyncio.Future[None] | None = None
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.peer, self.tls = peer, tls

    # ---- what whoever serves it uses ---------------------------------------------------------------------------

    async def read(self, timeout_s: float) -> bytes:
        """Whatever has arrived, at least one octet; empty at the end. Raises `TimeoutError`."""
        if not self._arrived and not self._eof:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            self._deadline = loop.time() + timeout_s
            if self._timer is None or self._timer.when() > self._deadline:
                self._arm(loop)
            try:
                await self._waiter
            finally:
                self._waiter = None
        octets = b"".join(self._arrived)
        self._arrived.clear()
        if self._held > _HIGH and self._transport is not None:
            self._transport.resume_reading()
        self._held = 0
        return octets

    def write(self, octets: bytes) -> None:
        """Queue octets to be sent; after the end they are dropped."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(octets)

    async def drain(self, timeout_s: float | None = None) -> None:
        """Wait while the peer is slow to take what was written.

        Raises `ConnectionResetError` when it is gone, `TimeoutError` when it has taken too little for so long.
        """
        if self._resumed is not None:
            async with asyncio.timeout(timeout_s):
                await self._resumed
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Go on under TLS. Raises `Injected` when plain text has come already, and what a failed handshake raises."""
        if self._arrived:
            raise Injected
        if self._transport is None:
            raise ConnectionResetError
        upgraded = await asyncio.get_running_loop().start_tls(
            self._transport, self, context, server_side=True, ssl_handshake_timeout=_HANDSHAKE_S
        )
        if upgraded is None:
            raise ConnectionResetError
        self._transport = upgraded
        upgraded.set_write_buffer_limits(_UNSENT)
        self.tls = True

    def close(self) -> None:
        """Send what is queued, then end the connection; a peer that does not take it in half a minute is cut off."""
        if self._transport is not None and not self._transport.is_closing():
            if self._transport.get_write_buffer_size():
                asyncio.get_running_loop().call_later(_LINGER_S, self._transport.abort)
            self._transport.close()

    def abort(self) -> None:
        """End the connection now, whatever is queued."""
        if self._transport is not None:
            self._transport.abort()

    # ---- what the loop calls -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(_UNSENT)

    def data_received(self, data: bytes) -> None:
        self._arrived.append(data)
        self._held += len(data)
        if self._held > _HIGH and self._transport is not None:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        self._eof = True
        self._wake()
        # Who has sent all it wanted to say may still listen; under TLS the loop knows no half-open connection.
        return not self.tls

    def connection_lost(self, exc: Exception | None) -> None:
        self._eof = True
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake()
        self.resume_writing()

    def pause_writing(self) -> None:
        self._resumed = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._resumed is not None and not self._resumed.done():
            self._resumed.set_result(None)
        self._resumed = None

    # One timer outlives many reads, and finds out when it rings whether the read it was set for still waits: setting
    # and clearing one for each line cost a tenth of what serving a line costs.

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(self._deadline, self._rang)

    def _rang(self) -> None:
        self._timer = None
        if self._waiter is None or self._waiter.done():
            return
        loop = self._waiter.get_loop()
        if loop.time() >= self._deadline:
            self._waiter.set_exception(TimeoutError())
        else:
            self._arm(loop)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Listener:
    """Accepts connections on one port and runs `serve` for each, within limits."""

    def __init__(
        self,
        serve: Serve,
        log: Logger,
        *,
        tls: Tls | None = None,
        implicit_tls: bool = False,
        max_connections: int = 0,
        limits: Limits | None = None,
        refusal: bytes = b"",
        proxy: Preamble | None = None,
    ) -> None:
        """`refusal` is what a connection above a limit (0: none) is told before it is closed."""
        self._serve = serve
        self._tls = tls if implicit_tls else None
        self.streams: set[Stream] = set()
        """Those that are served now."""
        self._reception = Reception(
            self._attend,
            log,
            total=max_connections,
            limits=limits,
            refusal=b"" if implicit_tls else refusal,
            proxy=proxy,
        )

    async def listen(self, host: str, port: int, *, shared: bool = False) -> None:
        """Begin to accept, `shared` with other processes; raises `OSError` when the port is taken."""
        self._reception.start(await listen(host, port, shared=shared))

    @property
    def port(self) -> int:
        """Where it listens, once it does."""
        return self._reception.addresses[0].port if self._reception.addresses else 0

    @property
    def connections(self) -> int:
        """How many are open."""
        return self._reception.connections

    async def close(self, grace_s: float) -> None:
        """Stop accepting, give the open connections nine tenths of `grace_s` to end, then cancel what serves them.

        The last tenth is theirs to let go of what they hold: the caller's own patience ends with the grace.
        """
        self._reception.stop()
        await self._reception.empty(grace_s * 0.9)

    async def _attend(self, sock: socket.socket, peer: Ends, _local: Ends) -> None:
        stream = Stream(peer.host, tls=self._tls is not None)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: stream,
                sock,
                ssl=self._tls() if self._tls is not None else None,
                ssl_handshake_timeout=_HANDSHAKE_S if self._tls is not None else None,
            )
        except OSError:
            sock.close()  # gone again, or its handshake failed: nobody is left to be told
            return
        self.streams.add(stream)
        try:
            with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
                await self._serve(stream)
        finally:
            self.streams.discard(stream)
            stream.close()
