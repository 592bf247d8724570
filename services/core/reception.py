"""The way in of every TCP door: accepts, hears what a proxy says of the peer, turns away whoever is one too many.

TLS begins behind it: a proxy's header stands in front of the handshake.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from services.core.crowd import Crowd, Limits
from services.core.ends import Ends, end
from services.core.telemetry import Logger

Preamble = Callable[[socket.socket], Awaitable[tuple[Ends, Ends]]]
"""Reads what a proxy says in front of everything else, TLS included, and nothing more; gives the true peer and local
ends. Raises OSError when there is nothing to believe."""
Attend = Callable[[socket.socket, Ends, Ends], Awaitable[None]]
"""Serves one peer to its end. The socket is its to close, or to give to a transport that does."""

_BACKLOG: Final = 1024
_ACCEPTS: Final = 64  # at one wake-up, so that a flood of new peers does not starve the old ones
# A peer that is gone without a word is found out within six minutes, and whatever stands between and forgets silent
# connections (cloud load balancers: after 4 to 10 minutes) sees that this one is in use.
_KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 240), (socket.TCP_KEEPINTVL, 30), (socket.TCP_KEEPCNT, 4))
# Out of file descriptors: trying at once would only spin.
_ACCEPT_AGAIN_S: Final = 0.5
_PREAMBLE_S: Final = 10.0


class Reception:
    """One listener's sockets and the tasks of its peers."""

    def __init__(
        self,
        attend: Attend,
        log: Logger,
        *,
        total: int = 0,
        limits: Limits | None = None,
        refusal: bytes = b"",
        proxy: Preamble | None = None,
    ) -> None:
        """`total`: connections at once, 0: no limit; `refusal`: what one above a limit is told before it is closed."""
        self._attend, self._log = attend, log
        self._total, self._refusal, self._proxy = total, refusal, proxy
        self._crowd = Crowd(limits or Limits())
        self._loop = asyncio.get_running_loop()
        self._sockets: list[socket.socket] = []
        self._live: set[asyncio.Task[None]] = set()
        self._closing = False
        self.addresses: tuple[Ends, ...] = ()
        """Where it listens."""

    @property
    def connections(self) -> int:
        """How many peers there are."""
        return len(self._live)

    @property
    def closing(self) -> bool:
        """Whether nobody is let in any more."""
        return self._closing

    def start(self, sockets: Sequence[socket.socket]) -> None:
        """Begin to accept on sockets that listen."""
        self._sockets = list(sockets)
        self.addresses = tuple(end(each.getsockname()) for each in sockets)
        for each in sockets:
            each.setblocking(False)
            self._loop.add_reader(each, self._accept, each)

    def stop(self) -> None:
        """Let nobody in any more. Safe to call again."""
        if not self._closing:
            self._closing = True
            for each in self._sockets:
                self._loop.remove_reader(each)
                each.close()

    async def empty(self, patience_s: float) -> None:
        """Wait until every peer is gone; those left after `patience_s`, or when this is cancelled, are cut off."""
        try:
            if self._live:
                await asyncio.wait(self._live, timeout=patience_s)
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
            if self._total and len(self._live) >= self._total:
                self._turn_away(peer, end(address))
                continue
            task = self._loop.create_task(self._receive(peer))
            self._live.add(task)
            task.add_done_callback(self._ended)

    def _accept_again(self, listening: socket.socket) -> None:
        if not self._closing:
            self._loop.add_reader(listening, self._accept, listening)

    async def _receive(self, sock: socket.socket) -> None:
        try:
            if self._proxy is None:
                peer, local = end(sock.getpeername()), end(sock.getsockname())
            else:
                peer, local = await asyncio.wait_for(self._proxy(sock), _PREAMBLE_S)
        except (OSError, TimeoutError) as error:
            # Health checks look like this all day: they connect and say nothing.
            self._log.debug("connection failed before it began", reason=str(error))
            sock.close()
            return
        except BaseException:
            sock.close()
            raise
        if not self._crowd.enter(peer.host, self._loop.time()):
            self._turn_away(sock, peer)
            return
        try:
            await self._attend(sock, peer, local)
        finally:
            self._crowd.leave(peer.host)

    def _turn_away(self, sock: socket.socket, peer: Ends) -> None:
        self._log.warning("too many connections", peer=peer.host)
        if self._refusal:
            with contextlib.suppress(OSError):
                sock.send(self._refusal)
        sock.close()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._live.discard(task)
        if not task.cancelled() and (error := task.exception()):
            what = {"message": "a connection's session died", "exception": error, "task": task}
            self._loop.call_exception_handler(what)


async def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen on every address of `host`; raises OSError when one cannot be had."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    made: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            made.append(listening := socket.socket(family, socket.SOCK_STREAM))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # those it accepts inherit all of these
            for option, value in _KEEPALIVE:
                listening.setsockopt(socket.IPPROTO_TCP, option, value)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind(address)
            listening.listen(_BACKLOG)
    except OSError:
        for each in made:
            each.close()
        raise
    return made
