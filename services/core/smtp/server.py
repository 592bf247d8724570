"""The listener: accepts, begins TLS where it is implicit, holds one conversation for each peer, drains."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from services.core.smtp import replies
from services.core.smtp.connection import Connection, Context
from services.core.smtp.conversation import Conversation, Gone
from services.core.smtp.dialogue import converse
from services.core.smtp.hooks import Hooks
from services.core.smtp.options import Options
from services.core.smtp.session import Ends, Session
from services.core.telemetry import Logger

Preamble = Callable[[socket.socket], Awaitable[tuple[Ends, Ends]]]
"""Reads what a proxy says in front of everything else, TLS included, and nothing more; gives the true peer and local
ends. Raises OSError when there is nothing to believe."""

_BACKLOG: Final = 1024
_ACCEPTS: Final = 64  # at one wake-up, so that a flood of new peers does not starve the old ones
# Out of file descriptors: trying at once would only spin.
_ACCEPT_AGAIN_S: Final = 0.5


async def serve(
    hooks: Hooks,
    options: Options,
    *,
    log: Logger,
    host: str = "127.0.0.1",
    port: int = 0,
    sockets: Sequence[socket.socket] | None = None,
    tls: Context | None = None,
    implicit_tls: bool = False,
    proxy: Preamble | None = None,
) -> Server:
    """Listen on `sockets`, or on `host` and `port`, until the server is closed.

    `tls` is asked for its context at every handshake; without it there is no STARTTLS. Raises OSError when the address
    cannot be had, ValueError for implicit TLS without a context.
    """
    if implicit_tls and tls is None:
        raise ValueError("implicit TLS needs a context")
    listening = list(sockets) if sockets is not None else await _listen(host, port)
    server = Server(hooks, options, log, listening, tls, implicit_tls, proxy)
    server.start()
    return server


class Server:
    """One listener with its connections."""

    def __init__(
        self,
        hooks: Hooks,
        options: Options,
        log: Logger,
        sockets: list[socket.socket],
        tls: Context | None,
        implicit_tls: bool,
        proxy: Preamble | None,
    ) -> None:
        self._hooks, self._options, self._log = hooks, options, log
        self._sockets, self._tls, self._implicit_tls, self._proxy = sockets, tls, implicit_tls, proxy
        self._loop = asyncio.get_running_loop()
        self._live: dict[asyncio.Task[None], Connection | None] = {}
        self._closing = False
        self.addresses = tuple(_ends(each.getsockname()) for each in sockets)
        """Where it listens."""

    @property
    def connections(self) -> int:
        """How many peers there are."""
        return len(self._live)

    def start(self) -> None:
        """Begin to accept."""
        for each in self._sockets:
            each.setblocking(False)
            self._loop.add_reader(each, self._accept, each)

    async def close(self, grace_s: float) -> None:
        """Stop accepting, tell idle peers 421, let the others finish their message, cut them off after `grace_s`.

        Safe to call again. When cancelled it cuts off at once.
        """
        if not self._closing:
            self._closing = True
            for each in self._sockets:
                self._loop.remove_reader(each)
                each.close()
        for connection in self._live.values():
            if connection is not None:
                connection.drain()
        try:
            if self._live:
                await asyncio.wait(self._live, timeout=grace_s)
        finally:
            left = list(self._live)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPTS):
            try:
                peer, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._log.error("cannot accept connections", reason=str(error))
                self._loop.remove_reader(listening)
                self._loop.call_later(_ACCEPT_AGAIN_S, self._accept_again, listening)
                return
            peer.setblocking(False)
            if len(self._live) >= self._options.max_connections:
                self._turn_away(peer, address)
                continue
            task = self._loop.create_task(self._attend(peer))
            self._live[task] = None
            task.add_done_callback(self._live.pop)

    def _accept_again(self, listening: socket.socket) -> None:
        if not self._closing:
            self._loop.add_reader(listening, self._accept, listening)

    def _turn_away(self, peer: socket.socket, address: Any) -> None:
        self._log.warning("too many connections", peer=str(address[0]), limit=self._options.max_connections)
        if not self._implicit_tls:
            with contextlib.suppress(OSError):
                peer.send(replies.TOO_MANY_CONNECTIONS.wire)
        peer.close()

    async def _attend(self, sock: socket.socket) -> None:
        timeouts = self._options.timeouts
        connection = Connection(self._loop, timeouts, self._tls)
        try:
            if self._proxy is None:
                peer, local = _ends(sock.getpeername()), _ends(sock.getsockname())
            else:
                peer, local = await asyncio.wait_for(self._proxy(sock), timeouts.handshake_s)
            await self._connect(connection, sock)
            session = Session(peer, local, tls=connection.tls() if self._implicit_tls else None)
        except (OSError, Gone) as error:
            self._log.debug("connection failed before the greeting", reason=str(error))
            sock.close()
            return
        try:
            task = asyncio.current_task()
            assert task is not None
            self._live[task] = connection
            if self._closing:
                connection.drain()
            await converse(Conversation(self._hooks, self._options, session, connection, self._log))
        finally:
            connection.close()

    async def _connect(self, connection: Connection, sock: socket.socket) -> None:
        # `create_server` would fix the context of implicit TLS, and read before a proxy's header could be taken off.
        context = self._tls() if self._implicit_tls and self._tls is not None else None
        await self._loop.connect_accepted_socket(
            lambda: connection,
            sock,
            ssl=context,
            ssl_handshake_timeout=self._options.timeouts.handshake_s if context is not None else None,
        )


async def _listen(host: str, port: int) -> list[socket.socket]:
    found = await asyncio.get_running_loop().getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    made: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            made.append(listening := socket.socket(family, socket.SOCK_STREAM))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind(address)
            listening.listen(_BACKLOG)
    except OSError:
        for each in made:
            each.close()
        raise
    return made


def _ends(address: Any) -> Ends:
    host = str(address[0])
    # A peer that came by IPv4 to a socket of both families is known by its IPv4 address.
    return Ends(host.removeprefix("::ffff:") if "." in host else host, int(address[1]))
