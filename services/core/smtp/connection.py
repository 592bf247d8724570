"""A transport as a channel: buffers, timeouts, backpressure, TLS. It decides nothing about mail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ssl import SSLContext
from typing import Final, cast

from services.core.smtp.conversation import Draining, Ended, Gone, TimedOut
from services.core.smtp.options import Timeouts
from services.core.smtp.replies import Reply
from services.core.smtp.session import Tls
from services.core.smtp.wire import Event, Framer

Context = Callable[[], SSLContext]
"""Gives the context for the next handshake, so that a renewed certificate is served without a restart."""

# A peer that pipelines further ahead than this waits until we have caught up.
_UNREAD: Final = 256 * 1024
# Replies that wait for the buffer to run dry (RFC 2920 3.2) go out when they are this many octets.
_UNSENT: Final = 16 * 1024
# For a peer that does not read its last replies.
_LINGER_S: Final = 10.0


class Connection(asyncio.Protocol):
    """One peer. One task at a time may wait for what it says."""

    __slots__ = (
        "_block",
        "_context",
        "_deadline",
        "_drainable",
        "_draining",
        "_ended",
        "_framer",
        "_full",
        "_idle_at",
        "_loop",
        "_out",
        "_reading",
        "_room",
        "_timeouts",
        "_timer",
        "_transport",
        "_unsent",
        "_waiter",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, timeouts: Timeouts, context: Context | None) -> None:
        self._loop, self._timeouts, self._context = loop, timeouts, context
        self._framer = Framer()
        self._transport: asyncio.Transport | None = None
        self._ended = False  # the peer will say no more
        self._reading = True
        self._waiter: asyncio.Future[Event] | None = None
        self._block = False  # octets of a message are awaited: each arrival gives more time
        self._drainable = True
        self._draining = False
        self._out: list[bytes] = []
        self._unsent = 0
        self._full = False  # the transport asks us to write no more
        self._room: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        self._idle_at = loop.time() + timeouts.idle_s

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods of asyncio's and none of its classes.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._framer.feed(data)
        waiter = self._waiter
        if waiter is None:
            if len(self._framer) > _UNREAD and self._reading and self._transport is not None:
                self._reading = False
                self._transport.pause_reading()
        elif (event := self._framer.take()) is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(event)
        elif self._block:
            self._deadline = self._loop.time() + self._timeouts.block_s

    def eof_received(self) -> bool:
        self._end(Gone())
        # What was pipelined before the end is still answered; a TLS transport cannot be half closed.
        return self._transport is not None and self._transport.get_extra_info("ssl_object") is None

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._end(Gone())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    # What the conversation calls

    def send(self, octets: bytes) -> None:
        """Say this before the next wait."""
        self._out.append(octets)
        self._unsent += len(octets)
        if self._unsent > _UNSENT:
            self._flush()

    async def line(self, drainable: bool = True) -> Event:
        """The next command line, within `command_s` and while the session is of use. Raises Ended."""
        if self._draining and drainable:
            raise Draining
        # A peer that is lost, and not just silent, learns of no answer: what it pipelined is not begun.
        if self._transport is None:
            raise Gone
        if self._full:
            await self._until_room()
        if (event := self._framer.take()) is not None:
            return event
        self._drainable = drainable
        return await self._wait(min(self._loop.time() + self._timeouts.command_s, self._idle_at))

    async def message(self, limit: int) -> Event:
        """Everything up to CRLF . CRLF; `block_s` begins anew with every arrival. Raises Ended."""
        self._framer.want_message(limit)
        return await self._octets()

    async def chunk(self, size: int, keep: bool) -> Event:
        """The next `size` octets; `block_s` begins anew with every arrival. Raises Ended."""
        self._framer.want_chunk(size, keep)
        return await self._octets()

    @property
    def unread(self) -> int:
        """Octets that have come and were not asked for yet."""
        return len(self._framer)

    @property
    def tls_possible(self) -> bool:
        """Whether there is a certificate to serve."""
        return self._context is not None

    def discard_unread(self) -> None:
        """Forget them."""
        self._framer.discard()

    def progressed(self) -> None:
        """The session has done something of use: its idle time begins anew."""
        self._idle_at = self._loop.time() + self._timeouts.idle_s

    async def start_tls(self, ready: Reply) -> Tls:
        """Say `ready`, then let the peer begin the handshake. Raises Gone when it fails."""
        transport = self._transport
        if transport is None or self._context is None:
            raise Gone
        # Before the peer is told: its first octets are the handshake's, they must not come to us.
        transport.pause_reading()
        self.send(ready.wire)
        self._flush()
        try:
            secured = await self._loop.start_tls(
                transport,
                self,
                self._context(),
                server_side=True,
                ssl_handshake_timeout=self._timeouts.handshake_s,
            )
        except OSError as error:
            self._transport = None
            raise Gone from error
        if secured is None:
            self._transport = None
            raise Gone
        self._transport, self._reading = secured, True
        return self.tls()

    # What the server calls

    def tls(self) -> Tls:
        """What the handshake agreed on. Raises Gone when the peer has left."""
        secured = self._transport.get_extra_info("ssl_object") if self._transport is not None else None
        if secured is None:
            raise Gone
        cipher = secured.cipher()
        return Tls(secured.version() or "", cipher[0] if cipher else "")

    def drain(self) -> None:
        """End the session as soon as it is not in the middle of a message."""
        self._draining = True
        waiter = self._waiter
        if waiter is not None and self._drainable and not self._block and not waiter.done():
            waiter.set_exception(Draining())

    def close(self) -> None:
        """Send what is left to say and close; a peer that does not read it is cut off after a while."""
        transport = self._transport
        if transport is None:
            return
        self._flush()
        transport.close()
        if self._full:
            self._loop.call_later(_LINGER_S, transport.abort)

    async def _octets(self) -> Event:
        if (event := self._framer.take()) is not None:
            return event
        self._block = True
        try:
            return await self._wait(self._loop.time() + self._timeouts.block_s)
        finally:
            self._block = False

    async def _wait(self, deadline: float) -> Event:
        """What is wanted, when it has come. Everything said so far goes out first."""
        self._flush()
        if self._ended:
            raise Gone
        if not self._reading and self._transport is not None:
            self._reading = True
            self._transport.resume_reading()
        waiter: asyncio.Future[Event] = self._loop.create_future()
        self._waiter = waiter
        self._arm(deadline)
        try:
            return await waiter
        finally:
            self._waiter = None

    async def _until_room(self) -> None:
        self._room = self._loop.create_future()
        self._arm(self._loop.time() + self._timeouts.block_s)
        try:
            await self._room
        finally:
            self._room = None

    def _flush(self) -> None:
        if self._out:
            if self._transport is not None and not self._transport.is_closing():
                self._transport.write(self._out[0] if len(self._out) == 1 else b"".join(self._out))
            self._out.clear()
            self._unsent = 0

    def _end(self, error: Ended) -> None:
        self._ended = True
        self._wake(error)

    def _wake(self, error: Ended) -> None:
        for future in (self._waiter, self._room):
            if future is not None and not future.done():
                future.set_exception(error)

    def _arm(self, deadline: float) -> None:
        # The timer is left as it is unless it would come too late: most waits end long before, and cost no timer.
        self._deadline = deadline
        if self._timer is None or self._timer.when() > deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(deadline, self._expired)

    def _expired(self) -> None:
        self._timer = None
        if self._waiter is None and self._room is None:
            return
        if self._deadline > self._loop.time():
            self._arm(self._deadline)
        else:
            self._wake(TimedOut())
