"""Everybody who is connected, and how a house full of connections is emptied."""

from __future__ import annotations

import asyncio

from services.core.stream import Stream
from services.core.tls import Tls
from services.imap.connection import Connection, Terms
from services.imap.session import Services

TURN_S = 0.05  # between two groups of goodbyes
SPREAD = 0.8  # of the grace is for goodbyes, the rest for running commands


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
        waiting = list(self._open)
        turns = max(1, int(grace_s * SPREAD / TURN_S))
        size = -(-len(waiting) // turns) or 1
        for at in range(0, len(waiting), size):
            for connection in waiting[at : at + size]:
                connection.dismiss()
            await asyncio.sleep(TURN_S if grace_s else 0)

    def _report(self, connection: Connection) -> None:
        login = connection.session.login
        if login is not None:
            self._terms.services.log.info(
                "session", account=login.account_id, tls=connection.tls, served=connection.served
            )
