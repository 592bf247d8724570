"""What accounts send, counted on a real Postgres by several processes' pools at once."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from services.core.ids import AccountId, new_spool_id
from services.core.store import accounts, sending
from services.core.store.engine import Store
from services.core.store.sending import Charged, Limits, NotThere
from services.core.store.spool import Entry, Recipient

FREE = Limits(0, 0)


async def somebody(store: Store) -> AccountId:
    async with store.begin("test") as conn:
        await accounts.create_domain(conn, "posta.test")
        return await accounts.create(conn, "bob@posta.test")


async def age(store: Store, column: str, by: timedelta) -> None:
    async with store.begin("test") as conn:
        await conn.execute(text(f"UPDATE sent_counts SET {column} = {column} - cast(:by AS interval)"), {"by": by})


async def fits(store: Store, bob: AccountId, *several: int, limits: Limits) -> list[bool]:
    return [(await sending.charge(store, bob, each, limits)).fits for each in several]


async def test_up_to_the_limit_and_no_further(store: Store) -> None:
    bob = await somebody(store)
    assert await fits(store, bob, 4, 6, 1, limits=Limits(10, 0)) == [True, True, False]
    last = await sending.charge(store, bob, 1, Limits(10, 0))
    assert timedelta(minutes=59) < last.again_at - datetime.now(UTC) <= timedelta(hours=1)
    await age(store, "hour_at", timedelta(minutes=59))
    assert await fits(store, bob, 1, limits=Limits(10, 0)) == [False]
    await age(store, "hour_at", timedelta(minutes=2))
    assert await fits(store, bob, 10, 1, limits=Limits(10, 0)) == [True, False]


async def test_the_day_has_a_limit_of_its_own(store: Store) -> None:
    bob = await somebody(store)
    assert await fits(store, bob, 3, limits=Limits(3, 5)) == [True]
    await age(store, "hour_at", timedelta(hours=2))
    assert await fits(store, bob, 3, 2, 1, limits=Limits(3, 5)) == [False, True, False]
    last = await sending.charge(store, bob, 1, Limits(3, 5))
    assert last.again_at - datetime.now(UTC) > timedelta(hours=20)
    await age(store, "day_at", timedelta(days=1))
    assert await fits(store, bob, 1, limits=Limits(3, 5)) == [True]


async def test_a_clock_that_was_set_back_makes_no_hour_last_for_days(store: Store) -> None:
    bob = await somebody(store)
    await fits(store, bob, 10, limits=Limits(10, 10))
    for _ in range(3):
        await sending.bad(store, bob)
    for column in ("hour_at", "day_at", "bad_at"):
        await age(store, column, timedelta(days=-3))
    assert await fits(store, bob, 10, 1, limits=Limits(10, 10)) == [True, False]
    assert await sending.bad(store, bob) == 1


async def test_what_was_put_off_is_remembered_as_tried_alone(store: Store) -> None:
    bob = await somebody(store)
    await fits(store, bob, 100, limits=Limits(10, 0))
    assert (await sending.charge(store, bob, 10, Limits(10, 0)))[:3] == ("active", True, 110)


async def test_what_comes_again_counts_once(store: Store) -> None:
    bob = await somebody(store)
    for _ in range(5):
        assert await fits(store, bob, 8, limits=Limits(10, 10)) == [True]
        await sending.refund(store, bob, 8)
    last = await sending.charge(store, bob, 2, Limits(10, 10))
    assert (last.fits, last.tried) == (True, 2)
    await sending.refund(store, bob, 100)
    assert await fits(store, bob, 11, 10, limits=Limits(10, 0)) == [False, True]


async def test_an_accounts_own_limits_come_first(store: Store) -> None:
    bob = await somebody(store)
    async with store.begin("test") as conn:
        await sending.set_limits(conn, bob, 2, 0)
    assert await fits(store, bob, 3, 2, limits=Limits(100, 1)) == [False, True]
    async with store.begin("test") as conn:
        await sending.set_limits(conn, bob, 0, None)
    assert (await sending.charge(store, bob, 3, Limits(1, 0))).limits == FREE
    with pytest.raises(NotThere):
        await sending.charge(store, AccountId(999), 1, FREE)


async def test_many_at_once_never_pass_the_limit(store: Store, postgres_url: str) -> None:
    bob = await somebody(store)
    stores = [Store(postgres_url, pool=4) for _ in range(3)]
    try:
        work = [sending.charge(each, bob, 3, Limits(50, 0)) for each in stores for _ in range(20)]
        charged: list[Charged] = await asyncio.gather(*work)
    finally:
        for each in stores:
            await each.close()
    assert sum(each.fits for each in charged) == 16
    assert max(each.tried for each in charged) == 180


async def test_one_of_many_pauses_and_tells(store: Store, postgres_url: str) -> None:
    bob = await somebody(store)

    def notice() -> Entry:
        return Entry(
            new_spool_id(), bytes(32), b"", 1, "", None, "posta", "", False, (Recipient("bob@posta.test", bob),)
        )

    stores = [Store(postgres_url, pool=4) for _ in range(3)]
    try:
        counts = await asyncio.gather(*(sending.bad(each, bob) for each in stores for _ in range(4)))
        paused = await asyncio.gather(*(sending.pause(each, bob, notice(), 20) for each in stores for _ in range(4)))
    finally:
        for each in stores:
            await each.close()
    assert sorted(counts) == list(range(1, 13))
    assert sum(paused) == 1
    async with store.query("test") as conn:
        assert (await conn.execute(text("SELECT count(*) FROM spool"))).scalar_one() == 1
    assert (await sending.state(store, bob)).sending == "paused"
    assert (await sending.charge(store, bob, 1, FREE)).sending == "paused"

    async with store.begin("test") as conn:
        await sending.resume(conn, bob)
    assert (await sending.state(store, bob)).sending == "active"
    assert await sending.bad(store, bob) == 1


async def test_bad_messages_are_of_one_hour(store: Store) -> None:
    bob = await somebody(store)
    await sending.charge(store, bob, 1, FREE)
    await age(store, "bad_at", timedelta(minutes=50))
    assert [await sending.bad(store, bob) for _ in range(2)] == [1, 2]
    await age(store, "bad_at", timedelta(minutes=50))
    assert await sending.bad(store, bob) == 3  # the hour began with the first of them
    await age(store, "bad_at", timedelta(minutes=11))
    assert await sending.bad(store, bob) == 1
