"""The listener: begins TLS where it is implicit, holds one conversation for each peer, drains."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

from services.core.ends import Ends
from services.core.reception import Preamble, Reception, listen
from services.core.smtp import replies
from services.core.smtp.connection import Connection, Context
from services.core.smtp.conversation import Conversation, Gone
from services.core.smtp.dialogue import converse
from services.core.smtp.hooks import Hooks
from services.core.smtp.options import Options
from services.core.smtp.session import Session
from services.core.telemetry import Logger


async def serve(
    hooks: Hooks,
    options: Options,
    *,
    log: Logger,
    host: str = "127.0.0.1",
    port: int = 0,
    shared: bool = False,
    sockets: Sequence[socket.socket] | None = None,
    tls: Context | None = None,
    implicit_tls: bool = False,
    proxy: Preamble | None = None,
) -> Server:
    """Listen on `sockets`, or on `host` and `port`, `shared` with other processes, until the server is closed.

    `tls` is asked for its context at every handshake; without it there is no STARTTLS. Raises OSError when the address
    cannot be had, ValueError for implicit TLS without a context.
    """
    if implicit_tls and tls is None:
        raise ValueError("implicit TLS needs a context")
    server = Server(hooks, options, log, tls, implicit_tls, proxy)
    server.start(sockets if sockets is not None else await listen(host, port, shared=shared))
    return server


class Server:
    """One listener with its connections."""

    def __init__(
        self,
        hooks: Hooks,
        options: Options,
        log: Logger,
        tls: Context | None,
        implicit_tls: bool,
        proxy: Preamble | None,
    ) -> None:
        self._hooks, self._options, self._log = hooks, options, log
        self._tls, self._implicit_tls = tls, implicit_tls
        self._loop = asyncio.get_running_loop()
        self._live: dict[Connection, Session] = {}
        self._reception = Reception(
            self._attend,
            log,
            total=options.max_connections,
            limits=options.limits,
            refusal=b"" if implicit_tls else replies.TOO_MANY_CONNECTIONS.wire,
            proxy=proxy,
        )

    @property
    def connections(self) -> int:
        """How many peers there are."""
        return self._reception.connections

    @property
    def messages(self) -> int:
        """How many messages have begun to come and are not answered yet."""
        open_ = (session.transaction for session in self._live.values())
        return sum(transaction is not None and transaction.chunks is not None for transaction in open_)

    @property
    def addresses(self) -> tuple[Ends, ...]:
        """Where it listens."""
        return self._reception.addresses

    def start(self, sockets: Sequence[socket.socket]) -> None:
        """Begin to accept."""
        self._reception.start(sockets)

    async def close(self, grace_s: float) -> None:
        """Stop accepting, tell idle peers 421, let the others finish their message, cut them off after `grace_s`.

        Safe to call again. When cancelled it cuts off at once.
        """
        self._reception.stop()
        for connection in self._live:
            connection.drain()
        await self._reception.empty(grace_s)

    async def _attend(self, sock: socket.socket, peer: Ends, local: Ends) -> None:
        connection = Connection(self._loop, self._options.timeouts, self._tls)
        try:
            await self._connect(connection, sock)
            session = Session(peer, local, tls=connection.tls() if self._implicit_tls else None)
        except (OSError, Gone) as error:
            self._log.debug("connection failed before the greeting", reason=str(error))
            sock.close()
            return
        self._live[connection] = session
        try:
            if self._reception.closing:
                connection.drain()
            await converse(Conversation(self._hooks, self._options, session, connection, self._log))
        finally:
            del self._live[connection]
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
