"""The queue and the routes over the admin API."""

from __future__ import annotations

import httpx
import pytest

from services.core.bus import Bus
from services.core.store.engine import Store
from tests.unit.mxrouter.house import House
from tests.unit.sync.conftest import client_of, make
from tests.unit.sync.test_admin import API, problem


@pytest.fixture
def house(store: Store) -> House:
    return House(store)


async def test_the_queue_is_shown_page_by_page(client: httpx.AsyncClient, house: House) -> None:
    first = await house.accept("a@far.test", "b@far.test")
    second = await house.accept("c@other.test", sender="")
    listed = (await client.get(f"{API}/queue")).json()
    assert [(row["spool_id"], row["n"], row["address"], row["state"]) for row in listed] == [
        (first, 0, "a@far.test", "fresh"),
        (first, 1, "b@far.test", "fresh"),
        (second, 0, "c@other.test", "fresh"),
    ]
    page = (await client.get(f"{API}/queue", params={"limit": 2, "after": first, "after_n": 0})).json()
    assert [row["address"] for row in page] == ["b@far.test", "c@other.test"]
    assert len((await client.get(f"{API}/queue", params={"sender": "<>"})).json()) == 1
    assert len((await client.get(f"{API}/queue", params={"domain": "FAR.test"})).json()) == 2
    shown = (await client.get(f"{API}/queue/{first}")).json()
    assert [row["address"] for row in shown["recipients"]] == ["a@far.test", "b@far.test"]
    assert f"Subject: {first}" in shown["header"]
    problem(await client.get(f"{API}/queue/{'0' * 26}"), 404)
    problem(await client.get(f"{API}/queue", params={"older_than_s": "old"}), 422)


async def test_what_is_meant_must_be_said(client: httpx.AsyncClient, house: House) -> None:
    await house.accept("a@far.test")
    for verb in ("retry", "hold", "release", "drop"):
        problem(await client.post(f"{API}/queue/{verb}", json={}), 422)
        problem(await client.post(f"{API}/queue/{verb}", json={"domian": "far.test"}), 422)
    assert await house.recipients("held") == [False]


async def test_hold_release_retry_drop(client: httpx.AsyncClient, house: House) -> None:
    kept = await house.accept("a@far.test", "b@other.test")
    assert (await client.post(f"{API}/queue/hold", json={"domain": "far.test"})).json() == {"recipients": 1}
    assert await house.recipients("held") == [True, False]
    assert (await client.post(f"{API}/queue/retry", json={"everybody": True})).json() == {"recipients": 1}
    assert (await client.post(f"{API}/queue/release", json={"spool_ids": [kept]})).json() == {"recipients": 1}
    assert (await client.post(f"{API}/queue/drop", json={"domain": "other.test", "bounce": True})).json() == {
        "recipients": 1
    }
    assert await house.recipients("doomed") == [None, "Given up by the postmaster"]
    assert (await client.post(f"{API}/queue/drop", json={"everybody": True})).json() == {"recipients": 2}
    assert await house.rows("SELECT 1 FROM spool") == []


async def test_a_routes_life(client: httpx.AsyncClient) -> None:
    new = {"host": "Relay.test", "recipient": "Far.test", "username": "us", "password": "s3cret"}
    made = await client.post(f"{API}/routes", json=new)
    assert made.status_code == 201
    assert "s3cret" not in made.text
    assert (await client.get(f"{API}/routes")).json() == [
        {
            "sender": "",
            "recipient": "far.test",
            "host": "relay.test",
            "port": 587,
            "implicit_tls": False,
            "username": "us",
        }
    ]
    assert (await client.post(f"{API}/routes/seal")).json() == {"routes": 0}
    problem(await client.post(f"{API}/routes", json={"host": "no host"}), 422)
    problem(await client.post(f"{API}/routes", json={"host": "h.test", "port": 0}), 422)
    assert (await client.delete(f"{API}/routes", params={"recipient": "far.test"})).status_code == 204
    problem(await client.delete(f"{API}/routes", params={"recipient": "far.test"}), 404)


async def test_a_password_is_not_kept_where_there_is_no_seal(store: Store, no_bus: Bus, house: House) -> None:
    async with client_of(make(store, no_bus, seal=None)) as client:
        login = {"host": "relay.test", "username": "us", "password": "s3cret"}
        said = problem(await client.post(f"{API}/routes", json=login), 409)
        assert "seal.secret is not set" in said["detail"]
        assert (await client.post(f"{API}/routes", json={"host": "open.test"})).status_code == 201
    assert await house.rows("SELECT host, password FROM relay_routes") == [("open.test", "")]


async def test_strangers_see_nothing(store: Store, no_bus: Bus) -> None:
    async with client_of(make(store, no_bus), token="wrong") as stranger:
        for path in ("queue", "routes", "queue/x"):
            problem(await stranger.get(f"{API}/{path}"), 401)
        problem(await stranger.post(f"{API}/queue/drop", json={"everybody": True}), 401)
