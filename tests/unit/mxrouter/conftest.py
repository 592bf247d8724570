"""Messages for elsewhere in a real store, and looks at what has become of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import text

from services.core.ids import SpoolId, new_spool_id
from services.core.store import blobs, spool
from services.core.store.engine import Store


class House:
    """A store, as its tests see it."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def accept(
        self, *recipients: str | spool.Recipient, sender: str = "alice@posta.test", **more: Any
    ) -> SpoolId:
        """One message as a door accepts it, for recipients of other domains."""
        spool_id = new_spool_id()
        octets = f"Subject: {spool_id}\r\nX-Long: {'x' * 200}\r\n\r\nhello\r\n".encode()
        [blob] = await blobs.stage(self.store, [octets])
        prefix = b"Received: from somewhere\r\n"
        entry = spool.Entry(
            spool_id=spool_id,
            blob_id=blob,
            prefix=prefix,
            size=len(prefix + octets),
            sender=sender,
            sender_account_id=None,
            door="submission",
            client="192.0.2.1",
            junk=False,
            recipients=tuple(r if isinstance(r, spool.Recipient) else spool.Recipient(r, None) for r in recipients),
        )
        await spool.insert(self.store, [entry._replace(**more)], 20)
        return spool_id

    async def rows(self, sql: str, **values: object) -> Sequence[Any]:
        """What a statement finds."""
        async with self.store.begin("test") as conn:
            found = await conn.execute(text(sql), values)
            return found.all() if found.returns_rows else []

    async def recipients(self, columns: str = "address") -> list[Any]:
        """The queue, in order."""
        rows = await self.rows(f"SELECT {columns} FROM spool_recipients WHERE account_id IS NULL ORDER BY spool_id, n")
        return [row[0] if len(row) == 1 else tuple(row) for row in rows]

    async def age(self, hours: float) -> None:
        """Everything queued is that much older, and due."""
        await self.rows("UPDATE spool SET received_at = received_at - make_interval(secs => :s)", s=hours * 3600)
        await self.rows(
            "UPDATE spool_recipients SET due_at = now() - interval '1 second',"
            " notice_at = notice_at - make_interval(secs => :s)",
            s=hours * 3600,
        )


@pytest.fixture
def house(store: Store) -> House:
    return House(store)
