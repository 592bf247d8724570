"""Everybody who is connected, and how a house full of connections is emptied."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from services.core.stream import Stream
from services.core.tls import Tls
from services.imap.connection import Connection, Terms
from services.imap.session import Services

TURN_S = 0.05  # from one goodbye to the next, where there are few
SPREAD = 0.8  # of the grace is for goodbyes, the rest for running commands


def goodbyes(count: int, grace_s: float, chance: Callable[[], float]) -> list[float]:
    """When each of `count` goodbyes is said, in seconds from now.

    Each has a turn of the same length and is said at some moment of it (`chance`: from 0 to 1), so that the clients of
    processes that drain together do not come back in step.
    """
    turn_s = min(TURN_S, grace_s * SPREAD / max(1, count))
    return [(turn + chance()) * turn_s for turn in range(count)]


class Connections:
    """Serves every accepted stream; the lifetime of one call is the lifetime of one session."""

    def __init__(self, services: Services, tls: Tls | None, *, login_timeout_s: float, idle_timeout_s: float) -> None:
        self._terms = Terms(services, tls, login_timeout_s, idle_timeout_s)
        self._open: set[Connection] = set()
        self._draining = False

    async def serve(self, stream: Stream) -> None:
        """Talk IMAP with one client until it logs out, leaves, or falls silent."""
        connection = Connection(self._terms, stream)
        self._open.add(connection)
        if self._draining:
            connection.dismiss()
        try:
            await connection.serve()
        finally:
            self._open.discard(connection)
            self._report(connection)
            await connection.session.close()

    async def drain(self, grace_s: float) -> None:
        """Send everybody away, spread over the grace so that they do not come back all at once.

        Running commands are answered first.
        """
        self._draining = True
        clock = asyncio.get_running_loop().time
        waiting, began = list(self._open), clock()
        for connection, moment in zip(waiting, goodbyes(len(waiting), grace_s, random.random), strict=True):
            await asyncio.sleep(began + moment - clock())
            connection.dismiss()

    def _report(self, connection: Connection) -> None:
        login = connection.session.login
        if login is not None:
            self._terms.services.log.info(
                "session", account=login.account_id, tls=connection.tls, served=connection.served
            )
