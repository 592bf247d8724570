"""The end of tombstones: what only they named goes with them, and readers that come later still learn the truth."""

from __future__ import annotations

import asyncio

from sqlalchemy import text

from services.core.ids import AccountId, Fid
from services.core.store import blobs, messages, retention
from services.core.store.engine import Store
from services.imap import queries
from tests.unit.core.store.test_messages import _account, _folders, _put, _row


async def _age(store: Store, days: int) -> None:
    async with store.begin("test") as conn:
        await conn.execute(text("UPDATE tombstones SET at = at - make_interval(days => :days)"), {"days": days})


async def _expunge(store: Store, account: AccountId, fid: Fid, *uids: int) -> None:
    async with store.begin("test") as conn:
        await messages.expunge(conn, account, fid, uids)


async def test_an_old_tombstone_takes_the_message_with_it_unless_a_copy_lives(store: Store) -> None:
    account = await _account(store)
    there = await _folders(store, account)
    inbox, archive = there["INBOX"].fid, there["Archive"].fid
    await _put(store, account, "gone", "copied", "kept")
    async with store.begin("test") as conn:
        await messages.copy(conn, account, inbox, [2], archive)
    await _expunge(store, account, inbox, 1, 2)
    await _age(store, 91)

    assert await retention.forget(store) == 2

    subjects = await _row(store, "SELECT array_agg(subject ORDER BY subject) FROM objects")
    assert subjects == (["copied", "kept"],)
    assert await blobs.sweep(store, await blobs.unnamed(store, older_than_s=-1), older_than_s=-1) == 1
    assert await _row(store, "SELECT count(*) FROM blobs") == (2,)


async def test_a_reader_from_before_is_told_everything_that_is_not_there(store: Store) -> None:
    account = await _account(store)
    inbox = (await _folders(store, account))["INBOX"].fid
    placed = await _put(store, account, *"abcdef")
    then = placed[-1].cn
    await _expunge(store, account, inbox, 2, 3)
    await _age(store, 91)
    await retention.forget(store)
    await _expunge(store, account, inbox, 5)

    assert await queries.vanished(store, account, inbox, then, 1 << 40) == [2, 3, 5]
    (floor,) = await _row(store, "SELECT forgotten_cn FROM account_seq")
    assert await queries.vanished(store, account, inbox, int(str(floor)), 1 << 40) == [5]


async def test_young_tombstones_stay_and_writers_beside_it_are_not_disturbed(store: Store) -> None:
    accounts = [await _account(store, name) for name in ("a", "b", "c")]
    inboxes = {each: (await _folders(store, each))["INBOX"].fid for each in accounts}
    for each in accounts:
        await _put(store, each, *map(str, range(20)))
        await _expunge(store, each, inboxes[each], *range(1, 11))
    await _age(store, 91)
    for each in accounts:
        await _expunge(store, each, inboxes[each], 11)

    async def write(each: AccountId) -> None:
        for n in range(10):
            await _put(store, each, f"new {n}")
            await _expunge(store, each, inboxes[each], 12 + n)

    forgotten, *_ = await asyncio.gather(retention.forget(store), retention.forget(store), *map(write, accounts))

    assert forgotten <= 30
    assert await retention.forget(store) == 0
    assert await _row(store, "SELECT count(*) FROM tombstones") == (33,)
