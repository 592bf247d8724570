"""Held mail on a real Postgres: every change happens once, whoever else is at it."""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from services.core.ids import AccountId, SpoolId, new_spool_id
from services.core.store import accounts, blobs, quarantine
from services.core.store import quarantine_upkeep as upkeep
from services.core.store.engine import Store
from services.core.store.quarantine import Held, NoSuchMessage, Released
from services.core.store.spool import Entry, Recipient, due_local

OCTETS = b"Subject: held\r\n\r\nHello\r\n"
PREFIX, HEADERS = b"Received: from x\r\n", b"X-Spam-Score: 12.0\r\n"


async def people(store: Store) -> tuple[AccountId, AccountId]:
    async with store.begin("test") as conn:
        await accounts.create_domain(conn, "posta.test")
        return await accounts.create(conn, "bob@posta.test"), await accounts.create(conn, "carol@posta.test")


async def hold(store: Store, *to: Recipient, accepted: bool = False, keep_days: int = 30, **more: Any) -> SpoolId:
    blob = (await blobs.stage(store, [OCTETS]))[0]
    entry = Entry(
        spool_id=new_spool_id(more.pop("at_ms", None)),
        blob_id=blob,
        prefix=PREFIX,
        size=len(HEADERS + PREFIX + OCTETS),
        sender=more.pop("sender", "someone@elsewhere.test"),
        sender_account_id=None,
        door="mx",
        client="192.0.2.1",
        junk=False,
        recipients=to,
    )
    facts: dict[str, Any] = {"kind": "spam", "reason": "it looks like spam", "score": 12.0, "notice_due": False}
    words = {"from_text": "Someone", "subject": "held", "message_id": "x@elsewhere.test", "secret": bytes(16)}
    findings = [{"engine": "policy", "symbol": "GTUBE", "kind": "spam", "score": 12.0, "detail": "é"}]
    held = Held(entry=entry, headers=HEADERS, accepted=accepted, findings=findings, **(facts | words | more))
    await quarantine.hold(store, held, keep_days)
    return entry.spool_id


async def let_go(store: Store, name: str, ns: list[int] | None = None) -> Released | None:
    return await quarantine.release(store, name, new_spool_id(), b"X-Posta-Released: yes\r\n", 20, ns)


async def both(store: Store) -> tuple[Recipient, Recipient]:
    bob, carol = await people(store)
    return Recipient("bob@posta.test", bob, "FAILURE"), Recipient("carol@posta.test", carol)


async def spooled(store: Store) -> list[Any]:
    async with store.query("test") as conn:
        return list(await conn.execute(text("SELECT spool_id, n, address, notify FROM spool_recipients ORDER BY 1, 2")))


async def test_what_is_held_is_known_whole(store: Store) -> None:
    name = await hold(store, *await both(store))
    shown = await quarantine.get(store, name)
    assert shown.headers + shown.prefix == HEADERS + PREFIX
    assert (shown.state, shown.kind, shown.score, shown.findings[0]["detail"]) == ("held", "spam", 12.0, "é")
    assert [(each.n, each.address, each.state) for each in shown.recipients] == [
        (0, "bob@posta.test", "held"),
        (1, "carol@posta.test", "held"),
    ]
    assert shown.expires_at - shown.received_at == timedelta(days=30)
    with pytest.raises(NoSuchMessage):
        await quarantine.get(store, "01ky0000000000000000000000")


async def test_octets_stay_while_they_are_held(store: Store) -> None:
    name = await hold(store, *await both(store))
    assert await blobs.unnamed(store, older_than_s=-1) == []
    await quarantine.delete(store, name)
    async with store.begin("test") as conn:
        await conn.execute(text("UPDATE quarantine_recipients SET settled_at = now() - interval '2 days'"))
    await upkeep.forget(store)
    assert await quarantine.find(store, settled=True) == []
    assert await blobs.sweep(store, await blobs.unnamed(store, older_than_s=-1), older_than_s=-1) == 1


async def test_a_release_is_mail_on_its_way(store: Store) -> None:
    name = await hold(store, *await both(store), accepted=True)
    done = await let_go(store, name)
    assert done is not None
    (bob, carol) = await due_local(store, [done.entry.spool_id])
    assert (bob.address, bob.notify, carol.address, carol.notify) == (
        "bob@posta.test",
        "FAILURE",
        "carol@posta.test",
        None,
    )
    assert bob.prefix == b"X-Posta-Released: yes\r\n" + HEADERS + PREFIX
    assert bob.size == len(bob.prefix) + len(OCTETS)
    assert (bob.sender, bob.junk) == ("someone@elsewhere.test", False)
    assert await let_go(store, name) is None
    assert (await quarantine.get(store, name)).state == "released"


async def test_a_release_keeps_all_that_a_door_said_of_a_recipient(store: Store) -> None:
    there = Recipient("eve@far.test", None, "FAILURE", "rfc822;team@posta.test", "posta.test")
    done = await let_go(store, await hold(store, there, accepted=True))
    assert done is not None
    assert done.entry.recipients == (there,)


async def test_who_was_refused_hears_nothing_of_the_release(store: Store) -> None:
    await let_go(store, await hold(store, *await both(store)))
    assert [row.notify for row in await spooled(store)] == ["NEVER", "NEVER"]


@pytest.mark.parametrize("accepted", [False, True])
async def test_of_many_at_once_each_recipient_has_one_fate(store: Store, postgres_url: str, accepted: bool) -> None:
    """Releases of all and of each, deletions and expiry, from several processes' pools at the same moment."""
    to = await both(store)
    names = [await hold(store, *to, accepted=accepted, keep_days=-1) for _ in range(8)]
    stores = [Store(postgres_url, pool=4) for _ in range(3)]
    try:
        work: list[Any] = []
        for each in stores:
            for name in names:
                work += [let_go(each, name), let_go(each, name, [1]), let_go(each, name, [0])]
                work += [quarantine.delete(each, name, [0])]
            work += [upkeep.expire(each)]
        await asyncio.gather(*work)
    finally:
        for each in stores:
            await each.close()

    released = Counter((row.spool_id, row.n) for row in await spooled(store))
    assert max(released.values()) == 1
    fates: Counter[str] = Counter()
    for name in names:
        fates.update(each.state for each in (await quarantine.get(store, name)).recipients)
    assert fates["held"] == 0
    assert sum(fates.values()) == 16
    assert fates["released"] == len(await spooled(store))


async def test_one_of_two_recipients_releases_for_himself_alone(store: Store) -> None:
    name = await hold(store, *await both(store))
    done = await let_go(store, name, [1])
    assert done is not None
    assert [each.address for each in done.entry.recipients] == ["carol@posta.test"]
    assert [each.state for each in (await quarantine.get(store, name)).recipients] == ["held", "released"]
    rest = await let_go(store, name)
    assert rest is not None
    assert [each.address for each in rest.entry.recipients] == ["bob@posta.test"]


async def test_a_sender_who_heard_250_is_owed_one_notice(store: Store) -> None:
    to = await both(store)
    kept, refused, freed = [await hold(store, *to, accepted=heard, keep_days=-1) for heard in (True, False, True)]
    await let_go(store, freed)
    assert {each.spool_id for each in await upkeep.expire(store)} == {kept, refused}
    assert await upkeep.expire(store) == []
    owed = await upkeep.ended(store)
    assert [(each.spool_id, each.n, each.state) for each in owed] == [(kept, 0, "expired"), (kept, 1, "expired")]
    notice = (await quarantine.get(store, kept)).blob_id

    def entry() -> Entry:
        there = (Recipient("someone@elsewhere.test", None),)
        return Entry(new_spool_id(), notice, b"", 10, "", None, "posta", "", False, there)

    before = len(await spooled(store))
    told = await asyncio.gather(*(upkeep.tell_sender(store, owed, entry(), 20) for _ in range(5)))
    assert sorted(told) == [False] * 4 + [True]
    assert len(await spooled(store)) == before + 1
    assert await upkeep.ended(store) == []


async def test_an_account_is_told_of_everything_once_and_daily_at_most(store: Store) -> None:
    to = await both(store)
    for _ in range(3):
        await hold(store, *to)
    untold = await upkeep.untold(store, 86_400)
    bobs = [each for each in untold if each.to == "bob@posta.test"]
    assert (len(untold), len(bobs)) == (6, 3)

    def digest() -> Entry:
        return Entry(new_spool_id(), bytes(32), b"", 10, "", None, "posta", "", False, to[:1])

    told = await asyncio.gather(*(upkeep.tell_account(store, bobs, digest(), 20) for _ in range(5)))
    assert sorted(told) == [False] * 4 + [True]
    assert len(await spooled(store)) == 1

    await hold(store, *to)
    assert {each.to for each in await upkeep.untold(store, 86_400)} == {"carol@posta.test"}
    assert [each.to for each in await upkeep.untold(store, 0) if each.to[0] == "b"] == ["bob@posta.test"]


async def test_a_domain_may_want_no_digests(store: Store) -> None:
    await hold(store, *await both(store))
    async with store.begin("test") as conn:
        assert await quarantine.set_policy(conn, "posta.test", digest=False) == ("refuse", False, False)
        assert await quarantine.set_policy(conn, "nowhere.test", digest=False) is None
    assert await upkeep.untold(store, 86_400) == []


async def test_what_is_held_for_an_account_goes_with_it(store: Store) -> None:
    to = await both(store)
    name = await hold(store, *to, accepted=True)
    async with store.begin("test") as conn:
        await accounts.delete(conn, AccountId(to[0].account_id or 0))
    assert [each.state for each in (await quarantine.get(store, name)).recipients] == ["deleted", "held"]
    assert [each.n for each in await upkeep.ended(store)] == [0]


async def test_finding(store: Store) -> None:
    to = await both(store)
    first = await hold(store, to[0], sender="a@one.test", at_ms=1)
    second = await hold(store, to[1], sender="b@two.test", at_ms=2)
    third = await hold(store, to[1], sender="", at_ms=3)

    async def found(**wanted: Any) -> list[SpoolId]:
        return [each.spool_id for each in await quarantine.find(store, **wanted)]

    assert await found() == [third, second, first]
    assert await found(limit=1) == [third]
    assert await found(before=second) == [first]
    assert await found(recipient="Carol@posta.test") == [third, second]
    assert await found(sender="one.test") == await found(sender="A@ONE.test") == [first]
    assert await found(sender="ne.test") == await found(sender="%") == []
    assert await found(domain="posta.test", sender="two.test") == [second]
    assert await found(domain="other.test") == []
    assert await found(age_s=3600) == []
    await quarantine.delete(store, first)
    assert await found() == [third, second]
    assert await found(settled=True) == [third, second, first]


async def test_the_census(store: Store) -> None:
    to = await both(store)
    await hold(store, *to)
    await hold(store, *to, kind="virus")
    await quarantine.delete(store, await hold(store, *to, kind="policy"))
    assert sorted((each.kind, each.messages) for each in await upkeep.census(store)) == [("spam", 1), ("virus", 1)]
