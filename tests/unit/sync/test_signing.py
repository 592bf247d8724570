"""DKIM keys over the admin API, against a DNS server that shows what it is told to."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from services.core.bus import Bus
from services.core.dkim import keys
from services.core.dns import Dns
from services.core.store.engine import Store
from tests.unit.core.dkim.resolver import Zone, serving
from tests.unit.sync.conftest import client_of, make
from tests.unit.sync.test_admin import API, problem

KEYS = f"{API}/domains/posta.test/dkim"


@pytest.fixture
async def dns_zone() -> AsyncIterator[Zone]:
    async with serving() as zone:
        yield zone


@pytest.fixture
async def admin(store: Store, no_bus: Bus, dns_zone: Zone) -> AsyncIterator[httpx.AsyncClient]:
    resolver = (f"127.0.0.1:{dns_zone.port}",)
    async with client_of(make(store, no_bus, resolver=lambda: Dns(resolver))) as client:
        await client.post(f"{API}/domains", json={"domain": "posta.test"})
        yield client


async def test_a_rotation(admin: httpx.AsyncClient, dns_zone: Zone) -> None:
    assert (await admin.get(KEYS)).json() == []
    made = await admin.post(KEYS)
    assert made.status_code == 201
    first = made.json()
    assert {(key["algorithm"], key["state"]) for key in first} == {("rsa", "published"), ("ed25519", "published")}
    assert all(key["name"] == f"{key['selector']}._domainkey.posta.test" for key in first)
    assert all(key["value"].startswith(f"v=DKIM1; k={key['algorithm']}; p=") for key in first)
    assert "private" not in made.text.lower()
    assert (await admin.post(KEYS)).json() == first

    detail = problem(await admin.post(f"{KEYS}/activate"), 409)["detail"]
    assert all(key["name"] in detail for key in first)
    for key in first:
        dns_zone.texts[key["name"]] = [key["zone"].partition("(")[2].rpartition(")")[0]]
    active = (await admin.post(f"{KEYS}/activate")).json()
    assert {key["state"] for key in active} == {"active"}

    await admin.post(KEYS)
    both = (await admin.post(f"{KEYS}/activate", params={"force": True})).json()
    assert sorted(key["state"] for key in both) == ["active", "active", "retired", "retired"]
    assert (await admin.get(KEYS)).json() == both
    assert "7 days" in problem(await admin.delete(f"{KEYS}/retired"), 409)["detail"]


async def test_a_key_of_another_signer(admin: httpx.AsyncClient) -> None:
    key = {"selector": "mail", "private_key": keys.make(keys.RSA, None).private_key}
    made = await admin.post(f"{KEYS}/import", json=key)
    assert [(each["selector"], each["state"]) for each in made.json()] == [("mail", "published")]
    assert "PRIVATE" not in made.text
    problem(await admin.post(f"{KEYS}/import", json=key), 409)
    refused = problem(await admin.post(f"{KEYS}/import", json=key | {"private_key": "rubbish"}), 422)
    assert "rubbish" not in str(refused)


async def test_what_is_refused(admin: httpx.AsyncClient, store: Store, no_bus: Bus) -> None:
    elsewhere = f"{API}/domains/elsewhere.test/dkim"
    for answer in (await admin.get(elsewhere), await admin.post(elsewhere), await admin.post(f"{elsewhere}/activate")):
        problem(answer, 404)
    problem(await admin.post(f"{API}/domains/no%20domain/dkim"), 422)
    problem(await admin.post(f"{KEYS}/activate"), 409)
    async with client_of(make(store, no_bus), token="wrong") as stranger:
        problem(await stranger.post(KEYS), 401)
