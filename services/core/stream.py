"""One accepted connection as bytes in and bytes out, and the listener that accepts it. Decides nothing.

Under uvloop an idle connection here costs a few KiB: there is no read buffer and no task beyond the one that serves it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import cast

from services.core.tls import Tls, renewing

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
        "_arrived", "_deadline", "_eof", "_held", "_listener", "_resumed", "_timer", "_transport", "_waiter", "peer",
        "tls",
    )  # fmt: skip

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._arrived: list[bytes] = []
        self._held = 0
        self._eof = False
        self._waiter: asyncio.Future[None] | None = None
        self._resumed: asyncio.Future[None] | None = None
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.peer = ""
        self.tls = listener.implicit_tls

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
        first = self._transport is None
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(_UNSENT)
        if first:
            name = transport.get_extra_info("peername")
            self.peer = name[0] if isinstance(name, tuple) else ""
            self._listener.accepted(self)

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
        *,
        tls: Tls | None = None,
        implicit_tls: bool = False,
        max_connections: int = 0,
        max_per_ip: int = 0,
        refusal: bytes = b"",
    ) -> None:
        """`refusal` is what a connection above a limit (0: none) is told before it is closed."""
        self.implicit_tls = implicit_tls
        self._serve, self._tls = serve, tls
        self._max, self._max_per_ip, self._refusal = max_connections, max_per_ip, refusal
        self._server: asyncio.Server | None = None
        self._tasks: dict[asyncio.Task[None], Stream] = {}
        self._by_ip: Counter[str] = Counter()
        self._closing = False

    async def listen(self, host: str, port: int) -> None:
        """Begin to accept; raises `OSError` naming the address when the port is taken."""
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Stream(self),
            host,
            port,
            ssl=renewing(self._tls) if self.implicit_tls and self._tls else None,
            backlog=1024,
            reuse_address=True,
            family=socket.AF_UNSPEC,
        )

    @property
    def port(self) -> int:
        """Where it listens, once it does."""
        return int(self._server.sockets[0].getsockname()[1]) if self._server else 0

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._tasks)

    def accepted(self, stream: Stream) -> None:
        """Called by a new stream."""
        full = self._max and len(self._tasks) >= self._max
        if self._closing or full or (self._max_per_ip and self._by_ip[stream.peer] >= self._max_per_ip):
            stream.write(self._refusal)
            stream.close()
            return
        self._by_ip[stream.peer] += 1
        task = asyncio.get_running_loop().create_task(self._run(stream))
        self._tasks[task] = stream
        task.add_done_callback(self._ended)

    async def _run(self, stream: Stream) -> None:
        try:
            # The peer is gone, or its handshake failed: nobody is left to be told.
            with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
                await self._serve(stream)
        finally:
            stream.close()

    def _ended(self, task: asyncio.Task[None]) -> None:
        stream = self._tasks.pop(task)
        self._by_ip[stream.peer] -= 1
        if not self._by_ip[stream.peer]:
            del self._by_ip[stream.peer]
        if not task.cancelled() and (error := task.exception()):
            what = {"message": "a connection's session died", "exception": error, "task": task}
            task.get_loop().call_exception_handler(what)

    async def close(self, grace_s: float) -> None:
        """Stop accepting, give the open connections nine tenths of `grace_s` to end, then cancel what serves them.

        The last tenth is theirs to let go of what they hold: the caller's own patience ends with the grace.
        """
        self._closing = True
        if self._server is not None:
            self._server.close()
        if self._tasks:
            _, late = await asyncio.wait(list(self._tasks), timeout=grace_s * 0.9)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
