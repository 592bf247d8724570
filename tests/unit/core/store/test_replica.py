"""The read-only Postgres: asked for what cannot be wrong or may be late; behind or away, it costs nobody anything."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest

from services.core.bus import Bus
from services.core.store import accounts, blobs, replica
from services.core.store.engine import Store, StoreUnavailable
from services.core.store.migrate import migrate
from services.core.store.replica import PATIENCE_S, REST_S, Replica
from services.core.telemetry import Metrics
from services.imap import queries
from tests.unit.sync.conftest import client_of, make

_AWAY = "postgresql://nobody@127.0.0.1:1/posta"


@pytest.fixture
async def behind(postgres_server: str, store: Store) -> AsyncIterator[Store]:
    """What a replica that is behind holds, to be filled by a test: a database where nothing has happened yet."""
    name = f"behind_{uuid.uuid4().hex[:12]}"
    conn = await asyncpg.connect(postgres_server)
    await conn.execute(f"CREATE DATABASE {name}")
    url = postgres_server.rsplit("/", 1)[0] + "/" + name
    await migrate(url)
    store.replica = Replica(url, 2, Metrics("test"))
    filling = Store(url, 1)
    yield filling
    await filling.close()
    await store.replica.close()
    await conn.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await conn.close()


async def test_octets_are_read_there_and_the_newest_from_the_primary(store: Store, behind: Store) -> None:
    old, new, gone = b"old octets", b"new octets", blobs.blob_id(b"never kept")
    (named,) = await blobs.stage(behind, [old])  # there alone: whoever has it was there
    (newest,) = await blobs.stage(store, [new])
    assert await queries.slices(store, [(named, 0, 3), (newest, 4, 100), (named, 4, 0)]) == [b"old", b"octets", b""]
    assert await queries.slices(store, [(newest, 0, 3)]) == [b"new"]
    with pytest.raises(LookupError):
        await queries.slices(store, [(named, 0, 3), (gone, 0, 3)])


async def test_lists_may_be_late_and_single_things_are_not(store: Store, behind: Store, no_bus: Bus) -> None:
    async with behind.begin("test") as conn:
        await accounts.create_domain(conn, "late.test")
    async with client_of(make(store, no_bus)) as client:

        async def of(path: str) -> httpx.Response:
            return await client.get(f"/api/v1/{path}")

        assert (await client.post("/api/v1/domains", json={"domain": "new.test"})).status_code == 201
        made = await client.post("/api/v1/accounts", json={"address": "ann@new.test"})
        assert made.status_code == 201
        assert (await of("domains")).json() == [{"domain": "late.test"}]
        assert (await of("accounts")).json() == []
        assert (await of("queue")).json() == []
        assert (await of("accounts/ann@new.test")).json() == made.json()


@pytest.fixture
async def no_bus() -> AsyncIterator[Bus]:
    bus = await Bus.connect("nats://127.0.0.1:1", "test")
    yield bus
    await bus.close()


async def test_one_that_is_away_is_left_alone_for_a_while(store: Store) -> None:
    now = 0.0
    store.replica = Replica(_AWAY, 1, clock=lambda: now)
    asked = 0

    async def question(copy: Store) -> bool:
        nonlocal asked
        asked += 1
        await copy.check()
        return True

    (named,) = await blobs.stage(store, [b"octets"])
    for _ in range(3):
        assert await store.replica.ask(question) is None
        assert await queries.slices(store, [(named, 0, 3)]) == [b"oct"]
    assert asked == 1
    now += REST_S
    assert await store.replica.ask(question) is None
    assert asked == 2
    async with store.begin("test") as conn:
        await accounts.create_domain(conn, "here.test")
    now += REST_S
    assert await replica.listed(store, "test", accounts.list_domains) == ["here.test"]


async def test_one_that_does_not_answer_is_not_waited_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "PATIENCE_S", 0.05)
    assert PATIENCE_S > 0.05
    copy = Replica(_AWAY, 1)

    async def never(_copy: Store) -> None:
        await asyncio.Event().wait()

    assert await copy.ask(never) is None
    await copy.close()


async def test_a_primary_that_is_away_too_is_said_so() -> None:
    gone = Store(_AWAY, 1)
    gone.replica = Replica(_AWAY, 1)
    with pytest.raises(StoreUnavailable):
        await queries.slices(gone, [(blobs.blob_id(b"x"), 0, 1)])
    await gone.close()
