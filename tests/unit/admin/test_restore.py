"""One mailbox brought back from another store: what comes, where to, and what stops it before anything has come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from sqlalchemy import text

from services.admin.restore import BATCH, NotRestored, Restoration
from services.core.bus import Bus
from services.core.foldername import BadName, paths
from services.core.ids import AccountId, Fid
from services.core.store import accounts, beside, blobs, folders, messages
from services.core.store.content import prepare
from services.core.store.engine import Store
from services.core.store.flags import Flag
from services.core.store.messages import Placement
from services.core.store.migrate import migrate

ANN = "ann@example.org"
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


async def _database(server: str, statement: str) -> None:
    conn = await asyncpg.connect(server)
    try:
        await conn.execute(statement)
    finally:
        await conn.close()


@pytest.fixture
def url(postgres_server: str) -> Iterator[str]:
    """A second database, empty."""
    asyncio.run(_database(postgres_server, "CREATE DATABASE beside"))
    yield postgres_server.rsplit("/", 1)[0] + "/beside"
    asyncio.run(_database(postgres_server, "DROP DATABASE beside WITH (FORCE)"))


class Mailbox:
    """Ann's, in one store."""

    def __init__(self, store: Store, account_id: AccountId) -> None:
        self.store, self.account_id = store, account_id

    @classmethod
    async def of(cls, store: Store) -> Mailbox:
        async with store.begin("test") as conn:
            with suppress(accounts.AlreadyExists):
                await accounts.create_domain(conn, "example.org")
                await accounts.create(conn, ANN)
            return cls(store, (await accounts.get(conn, ANN)).account_id)

    async def folders(self) -> dict[str, folders.Folder]:
        async with self.store.read("test") as conn:
            rows = await folders.list_folders(conn, self.account_id)
        path_of = paths(rows)
        return {path_of[row.fid]: row for row in rows}

    async def put(self, path: str, *subjects: str, at: datetime = NOW, **more: object) -> None:
        """Messages into a folder, which is made where it is missing."""
        found = await self.folders()
        if path not in found:
            above, _, name = path.rpartition("/")
            async with self.store.begin("test") as conn:
                await folders.create(conn, self.account_id, found[above].fid if above else Fid(0), name)
        fid = (await self.folders())[path].fid
        octets = [
            f"Subject: {subject}\r\nMessage-ID: <{subject}@x>\r\n\r\n{subject}\r\n".encode() for subject in subjects
        ]
        names = await blobs.stage(self.store, octets)
        await messages.append(
            self.store,
            self.account_id,
            [
                Placement(await prepare(name, b"Received: here\r\n", each), fid, at)._replace(**more)
                for name, each in zip(names, octets, strict=True)
            ],
        )

    async def subjects(self) -> dict[str, list[str]]:
        """What lies in each folder that is not empty, in UID order."""
        found: dict[str, list[str]] = {}
        for path, row in (await self.folders()).items():
            async with self.store.read("test") as conn:
                said = await conn.execute(
                    text(
                        "SELECT o.subject FROM items i JOIN objects o USING (account_id, object_id) "
                        "WHERE i.account_id = :account_id AND i.fid = :fid ORDER BY i.uid"
                    ),
                    {"account_id": self.account_id, "fid": row.fid},
                )
                if subjects := list(said.scalars()):
                    assert (row.total, row.uidnext > row.total) == (len(subjects), True)
                    found[path] = subjects
        return found


@pytest.fixture
async def bus() -> AsyncIterator[Bus]:
    """Nobody need be told: NATS is away."""
    bus = await Bus.connect("nats://127.0.0.1:1", "test")
    yield bus
    await bus.close()


@asynccontextmanager
async def source(url: str) -> AsyncIterator[Mailbox]:
    """Ann's mailbox in the second database, which becomes a store the first time."""
    await migrate(url)
    store = Store(url, pool=2)
    try:
        async with store.begin("test") as conn:
            with suppress(accounts.AlreadyExists):
                # The accounts need not have the same number.
                await accounts.create_domain(conn, "example.com")
                await accounts.create(conn, "somebody@example.com")
        yield await Mailbox.of(store)
    finally:
        await store.close()


async def restore(store: Store, url: str, bus: Bus, into: str = "", since: datetime | None = None) -> dict[str, int]:
    async with beside.opened(url, store) as there:
        return {path: count async for path, count in Restoration(store, there, bus).run(ANN, into, since)}


async def test_what_is_missing_comes_back_and_what_was_moved_stays(store: Store, url: str, bus: Bus) -> None:
    here = await Mailbox.of(store)
    async with source(url) as there:
        await there.put("INBOX", "kept", "moved", "lost", "copied", "twin", "twin")
        await there.put("Sent", "copied")
    await here.put("INBOX", "kept", "copied", "twin", "new")
    await here.put("Archive", "moved")

    assert await restore(store, url, bus) == {"INBOX": 2, "Sent": 1}
    after = {"INBOX": ["kept", "copied", "twin", "new", "lost", "twin"], "Sent": ["copied"], "Archive": ["moved"]}
    assert await here.subjects() == after
    assert await restore(store, url, bus) == {}
    assert await here.subjects() == after


async def test_flags_dates_and_octets_come_along_into_folders_made_again(store: Store, url: str, bus: Bus) -> None:
    here = await Mailbox.of(store)
    async with source(url) as there:
        await there.put("Work", "above")
        marked = {"flags": Flag.FLAGGED | Flag.DELETED, "is_read": True, "keywords": ("$Important",)}
        await there.put("Work/2026", "below", at=NOW - timedelta(days=400), **marked)

    assert await restore(store, url, bus) == {"Work": 1, "Work/2026": 1}
    found = (await here.folders())["Work/2026"]
    assert (found.subscribed, found.unseen) == (True, 0)
    async with store.read("test") as conn:
        row = (
            await conn.execute(
                text(
                    "SELECT i.flags, i.is_read, i.keywords, i.internal_date, i.cn = i.modseq, o.prefix, b.content "
                    "FROM items i JOIN objects o USING (account_id, object_id) JOIN blobs b USING (blob_id) "
                    "WHERE i.fid = :fid"
                ),
                {"fid": found.fid},
            )
        ).one()
    assert row[:5] == (Flag.FLAGGED, True, ["$Important"], NOW - timedelta(days=400), True)
    assert (row[5], row[6]) == (b"Received: here\r\n", b"Subject: below\r\nMessage-ID: <below@x>\r\n\r\nbelow\r\n")


async def test_a_folder_to_put_it_all_into_and_a_day_to_begin_with(store: Store, url: str, bus: Bus) -> None:
    here = await Mailbox.of(store)
    async with source(url) as there:
        await there.put("INBOX", "old", at=NOW - timedelta(days=1))
        await there.put("INBOX", "young")
        await there.put("Sent", "sent")

    assert await restore(store, url, bus, "Back/today", NOW) == {"Back/today/INBOX": 1, "Back/today/Sent": 1}
    assert await here.subjects() == {"Back/today/INBOX": ["young"], "Back/today/Sent": ["sent"]}
    # What lies there is held as well.
    assert await restore(store, url, bus) == {"INBOX": 1}
    assert (await here.subjects())["INBOX"] == ["old"]
    async with source(url) as there:
        await there.put("INBOX", "one more")
    with pytest.raises(BadName):
        await restore(store, url, bus, "no*")
    assert await restore(store, url, bus, "inbox") == {"INBOX/INBOX": 1}


async def test_many_come_in_batches_in_the_order_they_had(store: Store, url: str, bus: Bus) -> None:
    here = await Mailbox.of(store)
    subjects = [f"{number:04}" for number in range(2 * BATCH + 50)]
    async with source(url) as there:
        await there.put("INBOX", *subjects)
    await here.put("INBOX", *subjects[:10])

    assert await restore(store, url, bus) == {"INBOX": len(subjects) - 10}
    assert await here.subjects() == {"INBOX": subjects}


async def test_what_does_not_fit_the_quota_does_not_come_in_part(store: Store, url: str, bus: Bus) -> None:
    here = await Mailbox.of(store)
    async with source(url) as there:
        await there.put("INBOX", "a", "b")
        size = (await there.folders())["INBOX"].octets
    async with store.begin("test") as conn:
        await accounts.set_quota(conn, here.account_id, size - 1)
    with pytest.raises(NotRestored, match=f"^{size} octets would come back to {ANN}, whose quota leaves {size - 1}$"):
        await restore(store, url, bus)
    assert await here.subjects() == {}
    async with store.begin("test") as conn:
        await accounts.set_quota(conn, here.account_id, size)
    assert await restore(store, url, bus) == {"INBOX": 2}


async def test_who_is_unknown_here_or_there(store: Store, url: str, bus: Bus) -> None:
    await migrate(url)
    with pytest.raises(accounts.NoSuchAccount):
        await restore(store, url, bus)
    await Mailbox.of(store)
    with pytest.raises(NotRestored, match=f"^there is no account {ANN} in the source$"):
        await restore(store, url, bus)


async def test_a_source_that_is_no_store_of_this_schema(store: Store, url: str, bus: Bus) -> None:
    await Mailbox.of(store)
    with pytest.raises(beside.Unfit, match="the schema of the source is at no revision, that of the live store at "):
        await restore(store, url, bus)
    await migrate(url)
    await _database(url, "UPDATE alembic_version SET version_num = 'long ago'")
    with pytest.raises(beside.Unfit, match="the schema of the source is at long ago, that of the live store at "):
        await restore(store, url, bus)
    for wrong in (url + "_not", "postgresql://posta:secret@127.0.0.1:1/posta", "secret"):
        with pytest.raises(beside.Unfit) as refused:
            await restore(store, wrong, bus)
        assert "secret" not in str(refused.value)
