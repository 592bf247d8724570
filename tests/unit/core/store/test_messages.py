"""Numbers and counters under concurrency, and what each write stamps (the store's invariants)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from services.core.ids import AccountId, Fid, SpoolId
from services.core.store import blobs, folders, messages
from services.core.store.content import prepare
from services.core.store.engine import Store
from services.core.store.flags import Flag
from services.core.store.messages import FlagChange, Placed, Placement
from services.core.store.numbers import NoSuchAccount

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


async def _account(store: Store, name: str = "alice") -> AccountId:
    async with store.begin("test") as conn:
        account = (
            await conn.execute(
                text("INSERT INTO accounts (address, legacy_dn) VALUES (:a, :a) RETURNING account_id"),
                {"a": f"{name}@posta.test"},
            )
        ).scalar_one()
        await conn.execute(text("INSERT INTO account_seq (account_id) VALUES (:id)"), {"id": account})
        await folders.create_defaults(conn, account)
    return AccountId(account)


async def _folders(store: Store, account: AccountId) -> dict[str, folders.Folder]:
    async with store.read("test") as conn:
        return {f.name: f for f in await folders.list_folders(conn, account)}


async def _placement(
    store: Store, subject: str, role: str = "inbox", spool: str = "", n: int = 0, account: int = 0
) -> Placement:
    octets = f"Subject: {subject}\r\nMessage-ID: <{subject}@x>\r\n\r\nbody of {subject}\r\n".encode()
    [blob] = await blobs.stage(store, [octets])
    content = await prepare(blob, b"Received: here\r\n", octets)
    return Placement(content, role, NOW, account_id=AccountId(account), spool_id=SpoolId(spool), n=n)


async def _put(store: Store, account: AccountId, *subjects: str) -> list[Placed]:
    return await messages.append(store, account, [await _placement(store, s) for s in subjects])


async def _row(store: Store, sql: str, **values: object) -> tuple[object, ...]:
    async with store.read("test") as conn:
        return tuple((await conn.execute(text(sql), values)).one())


async def _check_counters(store: Store, account: AccountId) -> None:
    """Every counter equals what it counts, whatever has been done."""
    async with store.read("test") as conn:
        wrong = (
            await conn.execute(
                text("""
                SELECT f.name, f.total, f.unseen, f.octets, count(i.uid), count(i.uid) FILTER (WHERE NOT i.is_read),
                  coalesce(sum(i.size), 0)
                FROM folders f LEFT JOIN items i USING (account_id, fid) WHERE f.account_id = :a
                GROUP BY f.account_id, f.fid
                HAVING f.total <> count(i.uid) OR f.unseen <> count(i.uid) FILTER (WHERE NOT i.is_read)
                  OR f.octets <> coalesce(sum(i.size), 0) OR coalesce(max(i.uid), 0) >= f.uidnext
                """),
                {"a": account},
            )
        ).all()
        used = (
            await conn.execute(
                text("""
                SELECT used_octets, used_items, (SELECT coalesce(sum(size), 0) FROM items WHERE account_id = :a),
                  (SELECT count(*) FROM items WHERE account_id = :a) FROM account_seq WHERE account_id = :a
                """),
                {"a": account},
            )
        ).one()
    assert wrong == []
    assert used[0] == used[2]
    assert used[1] == used[3]


async def test_eight_writers_into_one_account_and_a_reader_by_high_water_mark_misses_nothing(store: Store) -> None:
    account = await _account(store)
    box = (await _folders(store, account))["INBOX"].fid
    contents = [await _placement(store, f"m{k}") for k in range(4)]
    running = True

    async def write(number: int) -> None:
        for _ in range(12):
            placed = await messages.append(store, account, contents)
            await messages.store_flags(store, account, box, [p.uid for p in placed], FlagChange(seen=True))
            await messages.store_flags(store, account, box, [placed[0].uid], FlagChange(add=Flag.FLAGGED))
            async with store.begin("test") as conn:
                await messages.expunge(conn, account, box, [placed[number % 4].uid])

    async def read() -> tuple[dict[int, int], set[int], int]:
        """What a client that only ever asks for "after my number" comes to believe: uid -> modseq."""
        seen: dict[int, int] = {}
        gone: set[int] = set()
        mark = rounds = 0
        last_round = False
        while not last_round:
            last_round = not running
            async with store.read("test") as conn:
                where = {"a": account, "f": box, "n": mark}
                top = (
                    await conn.execute(text("SELECT content_cn FROM folders WHERE account_id = :a AND fid = :f"), where)
                ).scalar_one()
                items = await conn.execute(
                    text("SELECT uid, modseq FROM items WHERE account_id = :a AND fid = :f AND modseq > :n"), where
                )
                graves = await conn.execute(
                    text("SELECT uid, cn FROM tombstones WHERE account_id = :a AND fid = :f AND cn > :n"), where
                )
            for uid, modseq in items:
                assert mark < modseq <= top, "a number at or below the mark appeared after it was read"
                seen[uid] = modseq
            for uid, cn in graves:
                assert mark < cn <= top
                gone.add(uid)
                seen.pop(uid, None)
            mark = max(mark, top)
            rounds += 1
        return seen, gone, rounds

    reader = asyncio.create_task(read())
    await asyncio.gather(*(write(n) for n in range(8)))
    running = False
    seen, gone, rounds = await reader
    async with store.read("test") as conn:
        truth = await conn.execute(text("SELECT uid, modseq FROM items WHERE account_id = :a"), {"a": account})
        assert seen == {row[0]: row[1] for row in truth}
    assert len(gone) == 8 * 12
    assert len(seen) == 8 * 12 * 3
    assert rounds > 3
    await _check_counters(store, account)


async def test_a_redelivered_message_is_placed_once(store: Store) -> None:
    account = await _account(store)
    placements = [await _placement(store, "one", spool="s1", n=n, account=account) for n in (0, 1)]
    first, again = await asyncio.gather(messages.deliver(store, placements), messages.deliver(store, placements))
    assert sorted([len(first), len(again)]) == [0, 2]
    third = await messages.deliver(store, [*placements, await _placement(store, "two", spool="s2", account=account)])
    assert [(p.ord, p.uid) for p in third] == [(3, 3)]
    await _check_counters(store, account)


async def test_batches_for_many_accounts_at_once_never_wait_in_a_circle(store: Store) -> None:
    accounts = [await _account(store, f"u{n}") for n in range(6)]
    content = await _placement(store, "one")

    async def batch(number: int) -> None:
        order = accounts if number % 2 else accounts[::-1]
        spool = SpoolId(f"s{number}")
        placements = [content._replace(account_id=a, spool_id=spool, n=n) for n, a in enumerate(order)]
        placed = await messages.deliver(store, placements)
        assert [p.ord for p in placed] == [1, 2, 3, 4, 5, 6]

    await asyncio.gather(*(batch(n) for n in range(24)))
    for account in accounts:
        await _check_counters(store, account)
        assert await _row(
            store, "SELECT count(DISTINCT uid), max(uid) FROM items WHERE account_id = :a", a=account
        ) == (24, 24)


async def test_junk_goes_to_junk_and_to_the_inbox_where_there_is_no_junk_folder(store: Store) -> None:
    account = await _account(store)
    boxes = await _folders(store, account)
    [placed] = await messages.deliver(store, [await _placement(store, "spam", "junk", "s1", account=account)])
    assert placed.fid == boxes["Junk"].fid
    async with store.begin("test") as conn:
        await messages.expunge_all(conn, account, boxes["Junk"].fid)
        await folders.delete(conn, account, boxes["Junk"].fid)
    [placed] = await messages.deliver(store, [await _placement(store, "more spam", "junk", "s2", account=account)])
    assert placed.fid == boxes["INBOX"].fid


async def test_nothing_is_kept_for_an_account_or_folder_that_is_gone(store: Store) -> None:
    with pytest.raises(NoSuchAccount):
        await messages.deliver(store, [await _placement(store, "lost", spool="s1", account=999)])
    account = await _account(store)
    both = [await _placement(store, "x", spool="s2", n=n, account=a) for n, a in enumerate((account, 999))]
    with pytest.raises(NoSuchAccount):  # one that is gone spoils the batch; delivery then tries them one by one
        await messages.deliver(store, both)
    assert await _row(store, "SELECT count(*) FROM deliveries") == (0,)
    with pytest.raises(NoSuchAccount):
        await messages.append(store, account, [(await _placement(store, "lost"))._replace(folder=Fid(999))])
    assert await _row(store, "SELECT (SELECT count(*) FROM objects), (SELECT count(*) FROM items)") == (0, 0)
    await _check_counters(store, account)


async def test_seen_moves_read_cn_and_other_flags_move_cn(store: Store) -> None:
    account = await _account(store)
    box = (await _folders(store, account))["INBOX"].fid
    [placed] = await _put(store, account, "one")
    numbers = "SELECT created_cn, cn, read_cn, modseq FROM items WHERE account_id = :a"
    born = placed.cn
    assert await _row(store, numbers, a=account) == (born, born, None, born)
    read = await messages.store_flags(store, account, box, [1], FlagChange(seen=True))
    assert await _row(store, numbers, a=account) == (born, born, read.cn, read.cn)
    flagged = await messages.store_flags(store, account, box, [1], FlagChange(Flag.FLAGGED, add_keywords=("work",)))
    nothing = await messages.store_flags(store, account, box, [1], FlagChange(Flag.FLAGGED, add_keywords=("work",)))
    assert await _row(store, numbers, a=account) == (born, flagged.cn, read.cn, flagged.cn)
    assert nothing.changed == []
    late = await messages.store_flags(store, account, box, [1], FlagChange(seen=False), unchanged_since=read.cn)
    replaced = await messages.store_flags(store, account, box, [1], FlagChange.replace(Flag.DRAFT, False, ("a",)))
    assert late.modified == [1]
    assert late.changed == []
    assert replaced.changed == [1]
    assert await _row(store, "SELECT flags, is_read, keywords FROM items") == (int(Flag.DRAFT), False, ["a"])
    await _check_counters(store, account)


async def test_a_move_leaves_a_tombstone_that_says_where_to_and_a_copy_does_not(store: Store) -> None:
    account = await _account(store)
    boxes = await _folders(store, account)
    inbox, trash = boxes["INBOX"].fid, boxes["Trash"].fid
    await _put(store, account, "one", "two", "three")
    async with store.begin("test") as conn:
        copied = await messages.copy(conn, account, inbox, [1, 2, 77], trash)
        moved = await messages.move(conn, account, inbox, [2, 3], trash)
        within = await messages.move(conn, account, inbox, [1], inbox)
    assert [(c.source, c.uid) for c in copied] == [(1, 1), (2, 2)]
    assert [(c.source, c.uid) for c in moved] == [(2, 3), (3, 4)]
    assert [(c.source, c.uid) for c in within] == [(1, 4)]
    async with store.begin("test") as conn:
        graves = await conn.execute(text("SELECT uid, moved_to_mid, last_ref FROM tombstones ORDER BY cn"))
        assert graves.all() == [(2, moved[0].mid, False), (3, moved[1].mid, False), (1, within[0].mid, False)]
    await messages.store_flags(store, account, trash, [4], FlagChange(Flag.DELETED))
    async with store.begin("test") as conn:
        assert [e.uid for e in await messages.expunge_deleted(conn, account, trash, [1])] == []
        assert [e.uid for e in await messages.expunge_deleted(conn, account, trash)] == [4]
    assert await _row(store, "SELECT last_ref FROM tombstones ORDER BY cn DESC LIMIT 1") == (True,)
    await _check_counters(store, account)


async def test_replies_share_their_threads_name_in_any_order_of_arrival(store: Store) -> None:
    account = await _account(store)

    async def arrive(octets: bytes) -> None:
        [blob] = await blobs.stage(store, [octets])
        await messages.append(store, account, [Placement(await prepare(blob, b"", octets), "inbox", NOW)])

    await arrive(b"Message-ID: <3@x>\r\nReferences: <1@x> <2@x>\r\n\r\n")
    await arrive(b"Message-ID: <1@x>\r\n\r\n")
    await arrive(b"Message-ID: <4@x>\r\nIn-Reply-To: <3@x>\r\n\r\n")
    await arrive(b"Message-ID: <5@x>\r\n\r\n")
    async with store.read("test") as conn:
        threads = (await conn.execute(text("SELECT thread_id FROM objects ORDER BY object_id"))).scalars().all()
    assert threads[0] == threads[1] == threads[2] != threads[3]


async def test_a_folder_made_again_has_a_larger_uidvalidity(store: Store) -> None:
    account = await _account(store)
    async with store.begin("test") as conn:
        first = await folders.create(conn, account, Fid(0), "Work")
        await folders.delete(conn, account, first)
        with pytest.raises(folders.NoSuchFolder):
            await folders.get(conn, account, first)
        second = await folders.get(conn, account, await folders.create(conn, account, Fid(0), "Work"))
    assert second.uidvalidity > first
    async with store.begin("test") as conn:
        with pytest.raises(folders.FolderExists):
            await folders.create(conn, account, Fid(0), "Work")
        assert await folders.create(conn, account, second.fid, "Work") > second.fid
