"""An entry ends with its last recipient, whoever finishes them, and when."""

from __future__ import annotations

from sqlalchemy import text

from services.core.ids import SpoolId
from services.core.store import blobs, spool
from services.core.store.engine import Store


async def _entries(store: Store) -> int:
    async with store.read("test") as conn:
        return int((await conn.execute(text("SELECT count(*) FROM spool"))).scalar_one())


async def test_two_who_finish_at_once_leave_no_entry_behind(store: Store) -> None:
    entry = spool.Entry(
        *(SpoolId(f"{'0' * 25}1"), blobs.blob_id(b""), b"", 0, "a@far.test", None, "mx", "", False),
        tuple(spool.Recipient(f"{name}@far.test", None) for name in ("ann", "ben")),
    )
    await spool.insert(store, [entry], 20)
    async with store.driver("test") as one, store.driver("test") as other:
        async with one.transaction():
            first = await spool.finish_within(one, [(entry.spool_id, 0)])
            async with other.transaction():
                second = await spool.finish_within(other, [(entry.spool_id, 1)])
            await spool.forget_empty(other, second)
        assert await _entries(store) == 1  # neither could see that it was the last
        await spool.forget_empty(one, first)
    assert (first.recipients, second.recipients) == (1, 1)
    assert await _entries(store) == 0


async def test_who_finishes_the_rest_ends_the_entry(store: Store) -> None:
    entry = spool.Entry(
        *(SpoolId(f"{'0' * 25}1"), blobs.blob_id(b""), b"", 0, "a@far.test", None, "mx", "", False),
        tuple(spool.Recipient(f"{name}@far.test", None) for name in ("ann", "ben")),
    )
    await spool.insert(store, [entry], 20)
    await spool.finish(store, [(entry.spool_id, 0)])
    assert await _entries(store) == 1
    await spool.finish(store, [(entry.spool_id, 0), (entry.spool_id, 1)])
    assert await _entries(store) == 0
