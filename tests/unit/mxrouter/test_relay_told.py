"""What an operator has said, as the relay keeps to it: routes, keys, what is doomed, held or to be tried again."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from services.core.bus import Bus
from services.core.dkim.rotation import Rotation
from services.core.dns import Dns
from services.core.outbound import Outbound
from services.core.seal import Seal
from services.core.store import accounts, routes
from services.core.store.queued import Selection
from services.core.store.spool import Recipient
from tests.unit.mxrouter.house import DEAD, House, Script, relaying, until

WAX = Seal(SecretStr("sealing wax"))


@pytest.fixture
def carrier() -> Script:
    return Script()


async def test_an_operators_rules_decide_the_way(house: House, bus: Bus, carrier: Script) -> None:
    async with house.store.begin("test") as conn:
        await routes.put(conn, routes.rule("relay.test", sender="@posta.test", username="us", password="pw"), WAX)
        await routes.put(conn, routes.rule("", recipient="direct.test"), WAX)
    await house.accept("b@far.test", "c@direct.test")
    await house.accept("d@far.test", sender="x@elsewhere.test")
    async with relaying(house, bus, carrier, seal=WAX):
        await until(lambda: house.rows("SELECT 1 WHERE NOT EXISTS (SELECT FROM spool)"))
    ways = {letter.addressees[0].address: route.smarthost for route, letter in carrier.carried}
    assert ways["c@direct.test"] is None
    assert ways["d@far.test"] is None
    found = ways["b@far.test"]
    assert found is not None
    assert (found.host, found.port, found.username, found.password) == ("relay.test", 587, "us", "pw")


@pytest.mark.parametrize("seal", [Seal(None), Seal(SecretStr("another"))])
async def test_mail_for_a_smarthost_whose_password_cannot_be_opened_waits(
    house: House, bus: Bus, carrier: Script, seal: Seal
) -> None:
    async with house.store.begin("test") as conn:
        await routes.put(conn, routes.rule("relay.test", recipient="far.test", username="us", password="pw"), WAX)
    await house.accept("b@far.test")
    await house.accept("c@other.test")
    async with relaying(house, bus, carrier, seal=seal):
        left = "SELECT 1 FROM spool_recipients HAVING count(*) = 1 AND count(last_reply) = 1"
        await until(lambda: house.rows(left))
    assert carrier.to("other.test")
    assert await house.recipients("last_reply") == ["451 4.3.5 The password for that relay cannot be opened"]
    assert not carrier.to("far.test")


async def test_a_password_of_before_there_was_a_seal_opens_as_it_is(house: House, bus: Bus, carrier: Script) -> None:
    await house.rows(
        "INSERT INTO relay_routes (sender, recipient, host, port, implicit_tls, username, password)"
        " VALUES ('', '', 'relay.test', 587, false, 'us', 'pw')"
    )
    await house.accept("b@far.test")
    async with relaying(house, bus, carrier, seal=WAX):
        await until(lambda: carrier.carried)
    ((route, _),) = carrier.carried
    assert route.smarthost is not None
    assert route.smarthost.password == "pw"
    async with house.store.begin("test") as conn:
        assert await routes.reseal(conn, WAX) == 1
        (rule,) = await routes.every(conn)
    assert WAX.holds(rule.password or "")


async def test_what_leaves_is_signed_or_sent_in_the_name_of_who_forwards(
    house: House, bus: Bus, carrier: Script
) -> None:
    await house.alice()
    async with house.store.begin("test") as conn:
        alice = (await accounts.get(conn, "alice@posta.test")).account_id
    rotation = Rotation(house.store, Dns, None)
    await rotation.rotate("posta.test")
    await rotation.activate("posta.test", force=True)
    await house.accept("b@far.test", sender_account_id=alice)
    forwarded = Recipient("d@far.test", None, None, None, "posta.test")
    await house.accept("c@far.test", forwarded, sender="bob@example.org")
    async with relaying(house, bus, carrier):
        await until(lambda: house.rows("SELECT 1 WHERE NOT EXISTS (SELECT FROM spool)"))
    letters = {letter.addressees[0].address: letter for _, letter in carrier.carried}
    assert letters["b@far.test"].octets.startswith(b"DKIM-Signature: ")
    assert letters["c@far.test"].sender == "bob@example.org"
    assert letters["d@far.test"].sender.lower().startswith("srs0=")
    assert b"DKIM-Signature" not in letters["c@far.test"].octets + letters["d@far.test"].octets


async def test_what_an_operator_has_doomed_is_bounced_without_an_attempt(
    house: House, bus: Bus, carrier: Script
) -> None:
    await house.alice()
    await house.accept("b@far.test", "c@far.test")
    await house.rows("UPDATE spool_recipients SET doomed = 'Not wanted here' WHERE n = 0")
    async with relaying(house, bus, carrier):
        [notice] = await until(house.notices)
    assert carrier.to("far.test") == [["c@far.test"]]
    assert "Final-Recipient: rfc822; b@far.test\r\nAction: failed" in notice
    assert "Not wanted here" in notice


async def test_what_is_held_goes_when_it_is_released(house: House, bus: Bus, carrier: Script) -> None:
    outbound = Outbound(house.store, bus, service="test")
    await house.accept("b@far.test")
    await outbound.hold(Selection())
    async with relaying(house, bus, carrier):
        await house.accept("c@far.test")
        await until(lambda: _only_left(house, "b@far.test"))
        assert carrier.to("far.test") == [["c@far.test"]]
        await outbound.release(Selection())
        await until(lambda: house.rows("SELECT 1 WHERE NOT EXISTS (SELECT FROM spool)"))
    assert carrier.to("far.test") == [["c@far.test"], ["b@far.test"]]


async def _only_left(house: House, address: str) -> bool:
    return await house.recipients() == [address]


async def test_a_retry_by_an_operator_tries_the_dead_again(house: House, bus: Bus, carrier: Script) -> None:
    outbound = Outbound(house.store, bus, service="test")
    carrier.says = {"dead.test": DEAD}
    await house.accept("b@dead.test")
    async with relaying(house, bus, carrier) as relay:
        await until(lambda: house.all_put_off(1))
        assert relay._destinations.down("dead.test")
        del carrier.says["dead.test"]
        await outbound.retry(Selection(domain="dead.test"))
        await until(lambda: house.rows("SELECT 1 WHERE NOT EXISTS (SELECT FROM spool)"))
    assert len(carrier.carried) == 2
