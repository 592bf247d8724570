"""What counts by the clock, when the clock was set back: nobody is shut out until the old time has come again."""

from __future__ import annotations

from sqlalchemy import text

from services.core.ids import SpoolId
from services.core.store import blobs, greylist, spool, throttle
from services.core.store.engine import Store

BACK = "interval '3 days'"


async def run(store: Store, sql: str) -> None:
    async with store.begin("test") as conn:
        await conn.execute(text(sql))


async def test_failed_logins_do_not_multiply(store: Store) -> None:
    async with store.begin("test") as conn:
        for _ in range(2):
            await throttle.count(conn, ["a", "b"], 600)
    await run(store, f"UPDATE login_failures SET last_at = last_at + {BACK}")
    async with store.begin("test") as conn:
        assert await throttle.counts(conn, ["a"], 600) == {"a": 2}
        await throttle.count(conn, ["a"], 600)
        assert await throttle.counts(conn, ["a", "b"], 600) == {"a": 3, "b": 2}


async def test_a_stranger_waits_no_longer_than_before(store: Store) -> None:
    async with store.begin("test") as conn:
        assert await greylist.tried(conn, b"k", 300) == 300
    await run(store, f"UPDATE greylist SET first_at = first_at + {BACK}, last_at = last_at + {BACK}")
    async with store.begin("test") as conn:
        assert await greylist.tried(conn, b"k", 300) == 300
    await run(store, "UPDATE greylist SET first_at = first_at - interval '6 minutes'")
    async with store.begin("test") as conn:
        assert await greylist.tried(conn, b"k", 300) == 0


async def test_mail_for_mailboxes_is_looked_at(store: Store) -> None:
    entry = spool.Entry(
        *(SpoolId(f"{'0' * 25}1"), blobs.blob_id(b""), b"", 0, "a@far.test", None, "mx", "", False),
        (spool.Recipient("bob@posta.test", 1), spool.Recipient("ann@far.test", None)),
    )
    await spool.insert(store, [entry], 20)
    async with store.begin("test") as conn:
        assert await spool.sweep(conn, wait_s=20) == []
    await run(store, f"UPDATE spool_recipients SET due_at = due_at + {BACK}")
    async with store.begin("test") as conn:
        assert await spool.sweep(conn, wait_s=20) == [entry.spool_id]
        assert await spool.sweep(conn, wait_s=20) == []


async def test_after_a_failure_its_wait_is_believed(store: Store) -> None:
    entry = spool.Entry(
        *(SpoolId(f"{'0' * 25}1"), blobs.blob_id(b""), b"", 0, "a@far.test", None, "mx", "", False),
        (spool.Recipient("bob@posta.test", 1),),
    )
    await spool.insert(store, [entry], 20)
    async with store.begin("test") as conn:
        for wait_s in (30, 60, 120, 240, 480, 960, 1920, 3600, 3600):
            await spool.postpone(conn, entry.spool_id, [0], wait_s, "no")
            assert await spool.sweep(conn, wait_s=20) == []


async def test_what_looks_old_is_only_swept_when_it_has_been_seen_before(store: Store) -> None:
    [old] = await blobs.stage(store, [b"old"])
    await run(store, f"UPDATE blobs SET staged_at = staged_at - {BACK}")
    [seen] = await blobs.unnamed(store)
    assert seen == old
    [young] = await blobs.stage(store, [b"young"])
    await run(store, f"UPDATE blobs SET staged_at = staged_at - {BACK}")
    assert await blobs.sweep(store, [seen]) == 1
    assert (await blobs.read(store, [old, young])).keys() == {young}
