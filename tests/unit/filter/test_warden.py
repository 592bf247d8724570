"""The warden at work on a real Postgres, several at once as in several pods."""

import asyncio
import email
import email.policy
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from sqlalchemy import text

from services.core.bus import Bus
from services.core.directory import Directory
from services.core.ownmail import OwnMail
from services.core.settings import Filter, Quarantine, Settings, Sync
from services.core.spool import Spool
from services.core.store import blobs, quarantine
from services.core.store.engine import Store, StoreUnavailable
from services.core.store.spool import Recipient
from services.core.telemetry import Metrics, logger
from services.filter.warden import Warden, address_of
from tests.unit.core.store.test_quarantine import both, hold, spooled

_LETTERS = text("SELECT address, blob_id FROM spool JOIN spool_recipients USING (spool_id)")
SETTINGS = Settings(hostname="mx.posta.test", filter=Filter(), quarantine=Quarantine(url="https://mail.posta.test/"))


@pytest.fixture
async def wardens(store: Store, postgres_url: str, bus: Bus) -> AsyncIterator[list[Warden]]:
    """Three, each with connections and caches of its own."""
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(3):
            own, log = Store(postgres_url, pool=4), logger("test")
            stack.push_async_callback(own.close)
            mail = OwnMail(Spool(own, bus, log), Directory(own, bus))
            made.append(Warden(own, bus, mail, SETTINGS, log, Metrics("filter")))
        yield made


async def look(wardens: list[Warden]) -> None:
    """All at once, and once more."""
    for _ in range(2):
        await asyncio.gather(*(each.look() for each in wardens))


async def letters(store: Store) -> dict[str, Any]:
    """What is on its way, by recipient; each recipient has one letter at most."""
    async with store.query("test") as conn:
        rows = list(
            await conn.execute(text("SELECT address, blob_id FROM spool JOIN spool_recipients USING (spool_id)"))
        )
    octets = await blobs.read(store, [row.blob_id for row in rows])
    assert len({row.address for row in rows}) == len(rows)
    return {row.address: email.message_from_bytes(octets[row.blob_id], policy=email.policy.default) for row in rows}


async def test_each_account_has_one_digest_of_all_that_is_held(store: Store, wardens: list[Warden]) -> None:
    to = await both(store)
    names = [await hold(store, *to, at_ms=n) for n in range(3)]
    await look(wardens)
    found = await letters(store)
    assert set(found) == {"bob@posta.test", "carol@posta.test"}
    digest = found["bob@posta.test"]
    assert digest["Subject"] == "3 messages are held for you"
    for name in names:
        assert f"https://mail.posta.test/quarantine/{name}-0-" in digest.get_content()


async def test_the_end_of_what_was_accepted_is_one_notice(store: Store, wardens: list[Warden]) -> None:
    to = await both(store)
    name = await hold(store, *to, accepted=True, keep_days=-1)
    await hold(store, *to, accepted=False, keep_days=-1, sender="refused@elsewhere.test")
    await look(wardens)
    found = await letters(store)
    assert set(found) == {"someone@elsewhere.test"}
    dsn = found["someone@elsewhere.test"].as_string()
    assert dsn.count("Action: failed") == 2
    assert f"550 5.7.1 Held for review and not released in time, id {name}" in dsn
    assert {each.state for each in (await quarantine.get(store, name)).recipients} == {"expired"}


@pytest.mark.parametrize(
    ("notify", "sender"),
    [
        ("NEVER", "someone@elsewhere.test"),
        ("SUCCESS,DELAY", "someone@elsewhere.test"),
        (None, ""),
        (None, "no address"),
    ],
)
async def test_nobody_is_told_who_must_not_or_cannot_be(
    store: Store, wardens: list[Warden], notify: str | None, sender: str
) -> None:
    bob, _ = await both(store)
    await hold(store, bob._replace(notify=notify), accepted=True, keep_days=-1, sender=sender)
    await look(wardens)
    assert await spooled(store) == []


async def test_a_notice_at_once_is_given_once(store: Store, wardens: list[Warden]) -> None:
    there = Recipient("eve@far.test", None)  # not ours: there is no digest in the way
    await hold(store, there, accepted=True, notice_due=True)
    await hold(store, there._replace(notify="FAILURE"), accepted=True, notice_due=True, sender="other@elsewhere.test")
    await look(wardens)
    found = await letters(store)
    assert set(found) == {"someone@elsewhere.test"}
    assert found["someone@elsewhere.test"].as_string().count("Action: delayed") == 1


async def test_one_that_cannot_be_told_of_is_no_other_ones_trouble(
    store: Store, wardens: list[Warden], monkeypatch: pytest.MonkeyPatch
) -> None:
    to = await both(store)
    await hold(store, *to)
    good = OwnMail.entry

    async def fails_for_bob(self: OwnMail, spool_id: Any, to: Any, octets: bytes, **more: Any) -> Any:
        if to == ["bob@posta.test"]:
            raise ValueError("bob")
        return await good(self, spool_id, to, octets, **more)

    monkeypatch.setattr(OwnMail, "entry", fails_for_bob)
    await look(wardens)
    assert set(await letters(store)) == {"carol@posta.test"}


async def test_without_a_store_it_says_so(bus: Bus) -> None:
    nowhere = Store("postgresql://posta@127.0.0.1:1/none")
    mail = OwnMail(Spool(nowhere, bus, logger("test")), Directory(nowhere, bus))
    with pytest.raises(StoreUnavailable):
        await Warden(nowhere, bus, mail, SETTINGS, logger("test"), Metrics("filter")).look()
    await nowhere.close()


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        (SETTINGS, "https://mail.posta.test"),
        (Settings(hostname="mx.test"), "https://mx.test"),
        (Settings(hostname="mx.test", sync=Sync(public_hostname="web.test", tls_port=2443)), "https://web.test:2443"),
        (Settings(hostname="mx.test", sync=Sync(tls_port=0)), "https://mx.test"),
    ],
)
def test_where_links_lead(settings: Settings, url: str) -> None:
    assert address_of(settings) == url
