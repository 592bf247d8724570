"""Two tenants on one platform: each has its own domain, and learns nothing of the other's, however it asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from structlog.testing import capture_logs

from services.contracts.v1.mail_pb2 import Envelope, TraceEvent
from services.core.bus import Bus
from services.core.ids import AccountId, SpoolId, new_spool_id
from services.core.store import accounts, quarantine
from services.core.store.engine import Store
from services.core.store.spool import Recipient
from services.core.subjects import trace
from tests.unit.core.store.test_quarantine import hold, spooled
from tests.unit.sync.conftest import client_of, make
from tests.unit.sync.test_admin import API, problem

NOBODYS = "01ky0000000000000000000000"


class Two(NamedTuple):
    """The platform's own client, and that of each tenant."""

    app: FastAPI
    platform: httpx.AsyncClient
    red: httpx.AsyncClient
    blue: httpx.AsyncClient


@pytest.fixture
async def two(store: Store, bus: Bus) -> AsyncIterator[Two]:
    app = make(store, bus)
    async with client_of(app) as platform:
        shown = {}
        for tenant in ("red", "blue"):
            name = f"{tenant}.test"
            await done(platform.post(f"{API}/domains", json={"domain": name}))
            await done(platform.post(f"{API}/accounts", json={"address": f"ann@{name}", "password": "correct horse"}))
            alias = {"address": f"info@{name}", "targets": [f"ann@{name}"]}
            await done(platform.post(f"{API}/aliases", json=alias))
            new = {"name": tenant, "domains": [name.upper()]}
            shown[tenant] = (await done(platform.post(f"{API}/tokens", json=new)))["token"]
        async with client_of(app, shown["red"]) as red, client_of(app, shown["blue"]) as blue:
            yield Two(app, platform, red, blue)


async def done(asked: Any) -> Any:
    answer = await asked
    assert answer.is_success, answer.text
    return answer.json() if answer.content else None


async def ids(store: Store) -> dict[str, AccountId]:
    async with store.query("test") as conn:
        return {row.address: row.account_id for row in await accounts.list_accounts(conn)}


async def held(store: Store, *to: str, **more: Any) -> SpoolId:
    known = await ids(store)
    return await hold(store, *(Recipient(each, known.get(each)) for each in to), **more)


async def test_each_lists_its_own(two: Two) -> None:
    for client, name in ((two.red, "red.test"), (two.blue, "blue.test")):
        assert await done(client.get(f"{API}/domains")) == [{"domain": name}]
        assert [each["address"] for each in await done(client.get(f"{API}/accounts"))] == [f"ann@{name}"]
        assert [each["address"] for each in await done(client.get(f"{API}/aliases"))] == [f"info@{name}"]
    for path in ("accounts?domain=blue.test", "aliases?domain=blue.test", "aliases?target=ann@blue.test"):
        assert await done(two.red.get(f"{API}/{path}")) == []
        assert len(await done(two.blue.get(f"{API}/{path}"))) == 1


async def test_each_changes_its_own(two: Two) -> None:
    red = two.red
    assert (await done(red.post(f"{API}/accounts", json={"address": "Bob@Red.test"})))["address"] == "bob@red.test"
    bob = f"{API}/accounts/bob@red.test"
    assert (await done(red.put(f"{bob}/quota", json={"quota_octets": 5})))["quota_octets"] == 5
    assert (await done(red.patch(bob, json={"suspended": True})))["status"] == "suspended"
    await done(red.put(f"{bob}/password", json={"password": "another"}))
    number = (await done(red.post(f"{bob}/app-passwords", json={"label": "phone"})))["number"]
    await done(red.delete(f"{bob}/app-passwords/{number}"))
    await done(red.post(f"{API}/aliases", json={"address": "@red.test", "targets": ["ann@blue.test"]}))
    await done(red.delete(f"{API}/aliases/@red.test"))
    await done(red.delete(bob))
    problem(await red.get(bob), 404)


BODIES: dict[tuple[str, str], Any] = {
    ("post", "/accounts"): {"address": "new@blue.test"},
    ("patch", "/accounts/{address}"): {"display_name": "Mine"},
    ("put", "/accounts/{address}/quota"): {"quota_octets": 1},
    ("put", "/accounts/{address}/password"): {"password": "stolen horse"},
    ("post", "/accounts/{address}/app-passwords"): {"label": "mine"},
    ("post", "/aliases"): {"address": "all@blue.test", "targets": ["ann@red.test"]},
}


async def test_nothing_leads_to_the_others_things(two: Two, store: Store) -> None:
    """Every route that there is, with the other's names: what a route does not declare is not the tenants'."""
    spool_id = await held(store, "ann@blue.test", sender="someone@elsewhere.test")
    before = await everything(two.platform)
    document = await done(two.platform.get("/openapi.json"))
    named = {"address": "ann@blue.test", "domain": "blue.test", "spool_id": spool_id, "name": "blue", "number": "1"}
    seen: dict[int, set[str]] = {}
    for path, operations in document["paths"].items():
        for method in operations if path.startswith(API) else ():
            route = path.removeprefix(API)
            url = path.replace("{verb}", "delete").replace("/aliases/{address}", "/aliases/info@blue.test")
            what = {"what": spool_id} if route == "/traces" else {}
            answer = await two.red.request(method, url.format(**named), params=what, json=BODIES.get((method, route)))
            if answer.is_success:
                assert (method, "{" in route) == ("get", False), f"{method} {route}: {answer.text}"
                assert "blue" not in answer.text
            else:
                problem(answer, answer.status_code)
                assert answer.status_code in (403, 404), f"{method} {route}: {answer.text}"
                # As little as what is not there at all.
                nothing = {**named, "address": "nobody@blue.test", "spool_id": NOBODYS, "name": "none"}
                again = await two.red.request(method, url.format(**nothing), json=BODIES.get((method, route)))
                assert again.status_code == answer.status_code
            seen.setdefault(answer.status_code, set()).add(f"{method} {route}")
    assert await everything(two.platform) == before
    assert {"post /domains", "get /queue", "get /routes", "get /tokens", "post /tokens", "get /doctor"} <= seen[403]
    assert {"get /accounts/{address}", "get /quarantine/{spool_id}", "get /traces/{spool_id}"} <= seen[404]


async def everything(platform: httpx.AsyncClient) -> list[Any]:
    found = [await done(platform.get(f"{API}/{each}")) for each in ("domains", "accounts", "aliases", "quarantine")]
    words = await done(platform.get(f"{API}/accounts/ann@blue.test/app-passwords"))
    names = [each["name"] for each in await done(platform.get(f"{API}/tokens"))]
    return [*found, words, names]


async def test_an_account_is_of_the_domain_of_its_own_address(two: Two, store: Store) -> None:
    async with store.begin("test") as conn:
        await accounts.add_address(conn, (await accounts.get(conn, "ann@red.test")).account_id, "sales@blue.test")
    problem(await two.blue.get(f"{API}/accounts/sales@blue.test"), 404)
    problem(await two.blue.put(f"{API}/accounts/sales@blue.test/password", json={"password": "stolen horse"}), 404)
    assert (await done(two.red.get(f"{API}/accounts/sales@blue.test")))["address"] == "ann@red.test"


async def test_a_held_message_for_both_is_settled_by_each_for_its_own(two: Two, store: Store) -> None:
    name = await held(store, "ann@red.test", "ann@blue.test")
    for client, mine in ((two.red, "ann@red.test"), (two.blue, "ann@blue.test")):
        [listed] = await done(client.get(f"{API}/quarantine"))
        shown = await done(client.get(f"{API}/quarantine/{name}"))
        assert listed == shown
        assert [each["address"] for each in shown["recipients"]] == [mine]
        assert (await client.get(f"{API}/quarantine/{name}/message")).status_code == 200
    assert await done(two.red.get(f"{API}/quarantine?recipient=ann@blue.test")) == []
    assert await done(two.red.get(f"{API}/quarantine?domain=blue.test")) == []
    assert (await done(two.red.post(f"{API}/quarantine/{name}/release")))["recipients"] == ["ann@red.test"]
    assert [row.address for row in await spooled(store)] == ["ann@red.test"]
    assert (await done(two.red.get(f"{API}/quarantine/{name}")))["state"] == "released"
    assert (await done(two.blue.get(f"{API}/quarantine/{name}")))["state"] == "held"
    assert (await done(two.blue.post(f"{API}/quarantine/{name}/train")))["recipients"] == ["ann@blue.test"]
    assert [each.state for each in (await quarantine.get(store, name)).recipients] == ["released", "deleted"]


async def test_the_senders_tenant_sees_that_it_is_held_and_no_more(two: Two, store: Store) -> None:
    name = await held(store, "ann@blue.test", sender="Ann@Red.test")
    [shown] = await done(two.red.get(f"{API}/quarantine"))
    assert (shown["spool_id"], shown["sender"], shown["recipients"]) == (name, "Ann@Red.test", [])
    assert shown["state"] == "elsewhere"
    assert await done(two.red.get(f"{API}/quarantine/{name}")) == shown
    problem(await two.red.get(f"{API}/quarantine/{name}/message"), 404)
    for verb in ("release", "delete", "train"):
        problem(await two.red.post(f"{API}/quarantine/{name}/{verb}"), 404)
    assert (await done(two.blue.get(f"{API}/quarantine/{name}")))["state"] == "held"


async def told(bus: Bus, sender: str, *to: str, message_id: str = "m@red.test") -> str:
    """What doors, filter and delivery tell of one message."""
    spool_id = str(new_spool_id())
    for step in ("received", "scanned", "accepted"):
        tell(bus, spool_id, step, sender, ", ".join(to), message_id)
    for each in to:
        tell(bus, spool_id, "delivered", sender, each, "")
    while len(await bus.read_trace(trace(spool_id))) < 3 + len(to):
        await bus.check()
    return spool_id


def tell(bus: Bus, spool_id: str, step: str, sender: str, recipient: str, message_id: str, **more: str) -> None:
    words = {"step": step, "sender": sender, "recipient": recipient, "message_id": message_id, **more}
    bus.publish_trace(TraceEvent(envelope=Envelope(spool_id=spool_id), at_us=1, **words))


async def test_each_traces_what_it_sent_or_got(two: Two, bus: Bus) -> None:
    between = await told(bus, "ann@red.test", "ann@blue.test", "bob@red.test")
    other = await told(bus, "x@elsewhere.test", "ann@blue.test", message_id="other@elsewhere.test")

    for asked in (between, "m@red.test", "<M@red.test>", "ann@red.test"):
        for client, mine in ((two.red, "bob@red.test"), (two.blue, "ann@blue.test")):
            [found] = await done(client.get(f"{API}/traces", params={"what": asked}))
            assert found["spool_id"] == between
            assert [(each["step"], each["recipient"]) for each in found["steps"]] == [
                ("received", mine), ("scanned", mine), ("accepted", mine), ("delivered", mine),
            ]  # fmt: skip
            assert found == await done(client.get(f"{API}/traces/{between}"))
    # Who else got it is not told, by asking for them neither.
    assert await done(two.red.get(f"{API}/traces", params={"what": "ann@blue.test"})) == []
    assert await done(two.blue.get(f"{API}/traces", params={"what": "bob@red.test"})) == []
    for asked in (other, "other@elsewhere.test", "x@elsewhere.test"):
        assert await done(two.red.get(f"{API}/traces", params={"what": asked})) == []
        assert len(await done(two.blue.get(f"{API}/traces", params={"what": asked}))) == 1
    problem(await two.red.get(f"{API}/traces/{other}"), 404)
    problem(await two.red.get(f"{API}/traces/{NOBODYS}"), 404)
    problem(await two.red.get(f"{API}/traces/*"), 404)
    found = await done(two.platform.get(f"{API}/traces", params={"what": "ann@blue.test"}))
    assert {each["spool_id"] for each in found} == {between, other}


async def test_who_handed_a_message_in_learns_how_it_left(two: Two, bus: Bus) -> None:
    """But not where an alias led; and a name on what came from outside is no proof."""

    async def steps(door: str) -> list[tuple[str, str]]:
        spool_id = str(new_spool_id())
        to = "far@elsewhere.test, hidden@elsewhere.test"
        tell(bus, spool_id, "accepted", "ann@red.test", to, f"{door}@red.test", service=door)
        tell(bus, spool_id, "relayed", "ann@red.test", "far@elsewhere.test", "", service="mxrouter")
        behind = {"service": "mxrouter", "forwarded_by": "blue.test"}
        tell(bus, spool_id, "bounced", "ann@red.test", "hidden@elsewhere.test", "", **behind)
        while len(await bus.read_trace(trace(spool_id))) < 3:
            await bus.check()
        return [(s["step"], s["recipient"]) for s in (await done(two.red.get(f"{API}/traces/{spool_id}")))["steps"]]

    assert await steps("submission") == [("accepted", ""), ("relayed", "far@elsewhere.test")]
    assert await steps("mxrouter") == [("accepted", "")]


async def test_what_it_may_send_is_the_platforms_to_say(two: Two, store: Store) -> None:
    ann = (await ids(store))["ann@red.test"]
    async with store.begin("test") as conn:
        await conn.execute(text("UPDATE accounts SET sending = 'paused' WHERE account_id = :ann"), {"ann": ann})
    again = {"sending": "active"}
    problem(await two.red.patch(f"{API}/accounts/ann@red.test", json=again), 403)
    assert (await done(two.red.get(f"{API}/accounts/ann@red.test")))["sending"] == "paused"
    assert (await done(two.platform.patch(f"{API}/accounts/ann@red.test", json=again)))["sending"] == "active"


async def test_a_tokens_life(two: Two, store: Store) -> None:
    listed = await done(two.platform.get(f"{API}/tokens"))
    assert [(each["name"], each["domains"], each["used_at"]) for each in listed] == [
        ("blue", ["blue.test"], None), ("red", ["red.test"], None),
    ]  # fmt: skip
    await done(two.red.get(f"{API}/domains"))
    used = (await done(two.platform.get(f"{API}/tokens")))[1]["used_at"]
    assert used is not None
    await done(two.red.get(f"{API}/domains"))
    assert (await done(two.platform.get(f"{API}/tokens")))[1]["used_at"] == used  # at most once a minute
    secret = two.red.headers["authorization"].partition(".")[2]
    async with store.query("test") as conn:
        [row] = await conn.execute(text("SELECT t::text FROM admin_tokens t WHERE name = 'red'"))
    assert secret not in row[0]
    await done(two.platform.delete(f"{API}/tokens/red"))
    problem(await two.red.get(f"{API}/domains"), 401)
    problem(await two.platform.delete(f"{API}/tokens/red"), 404)


async def test_a_token_ends_on_its_day(two: Two, store: Store) -> None:
    new = {"name": "short", "domains": ["red.test"], "expires_at": f"{datetime.now(UTC) + timedelta(days=1):%FT%TZ}"}
    shown = (await done(two.platform.post(f"{API}/tokens", json=new)))["token"]
    async with client_of(two.app, shown) as client:
        await done(client.get(f"{API}/accounts"))
        async with store.begin("test") as conn:
            await conn.execute(text("UPDATE admin_tokens SET expires_at = now() WHERE name = 'short'"))
        problem(await client.get(f"{API}/accounts"), 401)


@pytest.mark.parametrize(
    ("new", "status"),
    [
        ({"name": "red", "domains": ["red.test"]}, 409),
        ({"name": "platform", "domains": ["red.test"]}, 422),
        ({"name": "A", "domains": ["red.test"]}, 422),
        ({"name": "a.b", "domains": ["red.test"]}, 422),
        ({"name": "new", "domains": []}, 422),
        ({"name": "new", "domains": ["red.test", "green.test"]}, 404),
        ({"name": "new", "domains": ["no domain"]}, 422),
        ({"name": "new", "domains": ["red.test"], "expires_at": "2020-01-01T00:00:00Z"}, 422),
        ({"name": "new", "domains": ["red.test"], "expires_at": "2099-01-01T00:00:00"}, 422),
    ],
)
async def test_a_token_that_cannot_be_made(two: Two, new: dict[str, Any], status: int) -> None:
    problem(await two.platform.post(f"{API}/tokens", json=new), status)


async def test_another_ones_name_and_ones_own_secret_are_no_token(two: Two) -> None:
    secret = two.red.headers["authorization"].partition(".")[2]
    for wrong in (f"blue.{secret}", f"platform.{secret}", f"RED.{secret}", secret, "red.", "red", ".", "\x00.\x00"):
        async with client_of(two.app, None) as client:
            client.headers = httpx.Headers([(b"authorization", b"Bearer " + wrong.encode())])
            problem(await client.get(f"{API}/domains"), 401)


async def test_a_domain_that_is_given_up_and_taken_again_is_not_the_old_tenants(two: Two) -> None:
    for path in ("aliases/info@red.test", "accounts/ann@red.test", "domains/red.test"):
        await done(two.platform.delete(f"{API}/{path}"))
    await done(two.platform.post(f"{API}/domains", json={"domain": "red.test"}))
    await done(two.platform.post(f"{API}/accounts", json={"address": "new@red.test"}))
    for path in ("domains", "accounts", "aliases", "quarantine"):
        assert await done(two.red.get(f"{API}/{path}")) == []
    problem(await two.red.get(f"{API}/accounts/new@red.test"), 404)


async def test_the_log_names_the_token_of_each_change(two: Two) -> None:
    with capture_logs() as lines:
        await done(two.red.put(f"{API}/accounts/ann@red.test/password", json={"password": "another horse"}))
        await done(two.red.post(f"{API}/accounts", json={"address": "bob@red.test", "password": "another horse"}))
        await done(two.platform.delete(f"{API}/aliases/info@red.test?target=ann@red.test"))
        problem(await two.red.delete(f"{API}/accounts/ann@blue.test"), 404)
        problem(await two.red.post(f"{API}/accounts", json={"address": 5}), 422)
        await done(two.red.get(f"{API}/accounts"))
    changed = [line for line in lines if line["event"] == "changed"]
    assert [(line["token"], line["method"], line["path"]) for line in changed] == [
        ("red", "PUT", f"{API}/accounts/ann@red.test/password"),
        ("red", "POST", f"{API}/accounts"),
        ("platform", "DELETE", f"{API}/aliases/info@red.test"),
    ]
    assert changed[1]["address"] == "bob@red.test"
    assert changed[2]["query"] == "target=ann@red.test"
    assert "horse" not in str(lines)


async def test_a_trace_without_a_bus_is_a_503(store: Store, no_bus: Bus) -> None:
    async with client_of(make(store, no_bus)) as client:
        answer = await client.get(f"{API}/traces", params={"what": "ann@red.test"})
    assert problem(answer, 503)["detail"] == "The message bus cannot be reached"
