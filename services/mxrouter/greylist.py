"""Greylisting: a stranger's first try is put off, and who tries again, as mail servers do, is taken (RFC 6647)."""

from __future__ import annotations

import asyncio
import hashlib

from services.core.ends import network_of
from services.core.smtp import replies
from services.core.smtp.replies import Reply
from services.core.store import greylist
from services.core.store.engine import Store, StoreUnavailable
from services.core.telemetry import Logger

_TIDY_EVERY_S = 600.0


def key(client: str, sender: str, recipient: str) -> bytes:
    """What a try is known by. The network, since the second may come from the next host of a farm."""
    said = "\n".join((network_of(client), sender.lower(), recipient.lower()))
    return hashlib.sha256(said.encode("utf-8", "surrogateescape")).digest()


class Greylist:
    """One per process; what it knows is in the store, so that the second try may meet another."""

    def __init__(self, store: Store, wait_s: float, log: Logger) -> None:
        self._store, self._wait_s, self._log = store, wait_s, log

    async def refusal(self, client: str, sender: str, recipient: str) -> Reply | None:
        """What a try that comes too early is told. Raises `StoreUnavailable`."""
        async with self._store.begin("greylist.tried") as conn:
            left_s = await greylist.tried(conn, key(client, sender, recipient), self._wait_s)
        return replies.GREYLISTED.about(f"in {int(left_s) + 1} seconds") if left_s > 0 else None

    async def tidy_forever(self) -> None:
        """Forget those who never came again, and those who stay away."""
        while True:
            try:
                async with self._store.begin("greylist.tidy") as conn:
                    await greylist.tidy(conn)
            except StoreUnavailable as error:
                self._log.warning("greylist not tidied", reason=str(error))
            await asyncio.sleep(_TIDY_EVERY_S)
