"""The admin API as its callers meet it: what works, what is refused and how, what others hear of it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from services.contracts.v1.mail_pb2 import DirectoryChanged
from services.core.auth.authenticator import Authenticator
from services.core.auth.login import AuthFailed, Client
from services.core.bus import Bus, directory_changed
from services.core.settings import Settings
from services.core.store.engine import Store
from tests.unit.core.auth.conftest import Waits
from tests.unit.core.conftest import NatsServer, up
from tests.unit.sync.conftest import client_of, make

API = "/api/v1"
ALICE = f"{API}/accounts/alice@posta.test"


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The problem document, which every error is (RFC 9457)."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert found["status"] == status
    assert found["type"] == "about:blank"
    assert found["title"]
    assert found["detail"]
    return found


async def alice(client: httpx.AsyncClient) -> None:
    assert (await client.post(f"{API}/domains", json={"domain": "Posta.Test"})).json() == {"domain": "posta.test"}
    made = await client.post(f"{API}/accounts", json={"address": "Alice@posta.test", "password": "correct horse"})
    assert made.status_code == 201, made.text


async def test_a_domains_life(client: httpx.AsyncClient) -> None:
    await alice(client)
    problem(await client.post(f"{API}/domains", json={"domain": "posta.test"}), 409)
    problem(await client.post(f"{API}/domains", json={"domain": "no domain"}), 422)
    await client.post(f"{API}/domains", json={"domain": "z.test"})
    assert (await client.get(f"{API}/domains")).json() == [{"domain": "posta.test"}, {"domain": "z.test"}]
    assert (await client.get(f"{API}/domains", params={"after": "posta.test"})).json() == [{"domain": "z.test"}]
    assert "posta.test" in problem(await client.delete(f"{API}/domains/posta.test"), 409)["detail"]
    assert (await client.delete(f"{API}/domains/z.test")).status_code == 204
    problem(await client.delete(f"{API}/domains/z.test"), 404)


async def test_an_accounts_life(client: httpx.AsyncClient) -> None:
    await alice(client)
    problem(await client.post(f"{API}/accounts", json={"address": "alice@posta.test"}), 409)
    problem(await client.post(f"{API}/accounts", json={"address": "alice@elsewhere.test"}), 404)
    problem(await client.post(f"{API}/accounts", json={"address": "alice"}), 422)
    problem(await client.post(f"{API}/accounts", json={"address": "bob@posta.test", "password": ""}), 422)
    found = (await client.get(ALICE)).json()
    assert {key: found[key] for key in found if key != "created_at"} == {
        "address": "alice@posta.test", "display_name": "", "status": "active", "quota_octets": None,
        "used_octets": 0, "used_items": 0, "sending": "active", "send_hour": None, "send_day": None,
    }  # fmt: skip
    changed = await client.patch(ALICE, json={"display_name": "Alice", "suspended": True})
    assert (changed.json()["display_name"], changed.json()["status"]) == ("Alice", "suspended")
    assert (await client.patch(ALICE, json={"suspended": False})).json()["display_name"] == "Alice"
    assert (await client.put(f"{ALICE}/quota", json={"quota_octets": 5})).json()["quota_octets"] == 5
    assert (await client.put(f"{ALICE}/quota", json={"quota_octets": None})).json()["quota_octets"] is None
    assert [a["address"] for a in (await client.get(f"{API}/accounts?domain=POSTA.test")).json()] == [
        "alice@posta.test"
    ]
    assert (await client.delete(ALICE)).status_code == 204
    for answer in (
        await client.get(ALICE),
        await client.delete(ALICE),
        await client.patch(ALICE, json={}),
        await client.put(f"{ALICE}/quota", json={"quota_octets": 1}),
        await client.put(f"{ALICE}/password", json={"password": "x"}),
        await client.get(f"{ALICE}/app-passwords"),
    ):
        problem(answer, 404)


async def test_an_aliass_life(client: httpx.AsyncClient) -> None:
    await alice(client)
    targets = ["alice@posta.test", "x@elsewhere.test"]
    made = await client.post(f"{API}/aliases", json={"address": "info@posta.test", "targets": targets})
    assert made.status_code == 201
    await client.post(f"{API}/aliases", json={"address": "@posta.test", "targets": targets[:1]})
    assert len((await client.get(f"{API}/aliases")).json()) == 2
    assert (await client.get(f"{API}/aliases", params={"target": targets[1]})).json() == [made.json()]
    problem(await client.post(f"{API}/aliases", json={"address": "alice@posta.test", "targets": targets}), 409)
    problem(await client.post(f"{API}/aliases", json={"address": "a@elsewhere.test", "targets": targets}), 404)
    problem(await client.post(f"{API}/aliases", json={"address": "b@posta.test", "targets": []}), 422)
    path = f"{API}/aliases/info@posta.test"
    assert (await client.delete(path, params={"target": targets[1]})).status_code == 204
    assert (await client.delete(path)).status_code == 204
    problem(await client.delete(path), 404)


async def test_passwords_and_app_passwords_open_what_they_are_for(
    client: httpx.AsyncClient, store: Store, no_bus: Bus
) -> None:
    await alice(client)
    made = await client.post(f"{ALICE}/app-passwords", json={"label": "phone", "scopes": ["pop", "imap", "pop"]})
    assert made.status_code == 201
    shown = made.json()
    listed = (await client.get(f"{ALICE}/app-passwords")).json()
    assert listed == [{key: shown[key] for key in ("number", "label", "scopes", "created_at")}]
    assert shown["scopes"] == ["imap", "pop"]
    checks = Authenticator(store, no_bus, Settings())
    await checks.start()
    assert (await checks.verify("alice@posta.test", shown["password"], Client("192.0.2.1", "pop"))).scopes
    with pytest.raises(AuthFailed):
        await checks.verify("alice@posta.test", shown["password"], Client("192.0.2.1", "submission"))
    checks.close()
    problem(await client.post(f"{ALICE}/app-passwords", json={"scopes": ["smtp"]}), 422)
    problem(await client.delete(f"{ALICE}/app-passwords/{shown['number'] - 1}"), 404)  # the account's own password
    assert (await client.delete(f"{ALICE}/app-passwords/{shown['number']}")).status_code == 204
    problem(await client.delete(f"{ALICE}/app-passwords/{shown['number']}"), 404)
    problem(await client.delete(f"{ALICE}/app-passwords/{1 << 63}"), 422)
    assert (await client.put(f"{ALICE}/password", json={"password": "another"})).status_code == 204
    assert (await client.get(f"{ALICE}/app-passwords")).json() == []


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/domains", b"{"),
        ("POST", "/domains", b'{"domain": "a\\u0000b.test"}'),
        ("POST", "/domains", b'{"domain": "\\ud800.test"}'),
        ("POST", "/domains", b'{"domain": 5}'),
        ("POST", "/accounts", b'{"address": "alice@posta.test", "display_name": "\\u0000"}'),
        ("POST", "/accounts", b'{"address": "alice@posta.test", "quota_octets": 99999999999999999999}'),
        ("POST", "/accounts", b'{"address": "alice@posta.test", "quota_octets": -1}'),
        ("POST", "/accounts", b'{"address": "alice@posta.test", "qouta_octets": 1}'),
        ("GET", "/accounts?after=%00", b""),
        ("GET", "/accounts?limit=0", b""),
        ("GET", "/accounts?limit=1001", b""),
        ("GET", "/accounts/%00@posta.test", b""),
        ("GET", "/accounts/nobody", b""),
    ],
)
async def test_what_is_not_of_the_expected_form(client: httpx.AsyncClient, method: str, path: str, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    problem(await client.request(method, API + path, content=body, headers=headers), 422)


async def test_what_is_nested_without_end(client: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "application/json"}
    problem(await client.post(f"{API}/domains", content=b"[" * 100_000, headers=headers), 400)


async def test_what_is_wrong_is_named_and_secrets_are_not_repeated(client: httpx.AsyncClient) -> None:
    answer = await client.post(f"{API}/accounts", json={"password": {"hunter": "hunter2"}})
    assert {error["field"] for error in problem(answer, 422)["errors"]} == {"body.address", "body.password"}
    assert "hunter" not in answer.text


async def test_what_is_not_there(client: httpx.AsyncClient) -> None:
    problem(await client.get("/nothing"), 404)
    assert "GET" in (await client.put(f"{API}/domains")).headers["allow"]
    problem(await client.put(f"{API}/domains"), 405)


async def test_only_the_tokens_bearer_gets_in(store: Store, no_bus: Bus) -> None:
    waits = Waits()
    app = make(store, no_bus, sleep=waits)
    for token in (None, "", "wrong", "s3cret-toke", "s3cret-token2", "\xe9"):
        async with client_of(app, None) as client:
            if token is not None:
                client.headers = httpx.Headers([(b"authorization", b"Bearer " + token.encode("latin-1"))])
            for method, path in (("GET", "/domains"), ("DELETE", "/accounts/a@b"), ("POST", "/accounts")):
                answer = await client.request(method, API + path)
                problem(answer, 401)
                assert answer.headers["www-authenticate"] == "Bearer"
    # Four wrong ones in three requests each: ten are free, then it takes longer each time. A right one never waits.
    assert waits.seconds == [1, 2]
    async with client_of(app) as client:
        assert (await client.get(f"{API}/domains")).status_code == 200
    assert len(waits.seconds) == 2
    async with client_of(make(store, no_bus, None), "") as client:
        problem(await client.get(f"{API}/domains"), 401)  # no token set: nobody is let in, by no token either


async def test_a_body_beyond_the_limit_is_not_read(client: httpx.AsyncClient) -> None:
    problem(await client.post(f"{API}/domains", content=b"x" * ((1 << 20) + 1)), 413)

    async def endless() -> Any:
        while True:
            yield b"x" * 65_536

    async with asyncio.timeout(10):
        problem(await client.post(f"{API}/domains", content=endless()), 413)


async def test_a_lost_store_is_a_503(no_bus: Bus) -> None:
    store = Store("postgresql://posta@127.0.0.1:1/none")
    async with client_of(make(store, no_bus)) as client:
        for answer in (
            await client.get(f"{API}/domains"),
            await client.post(f"{API}/domains", json={"domain": "a.test"}),
        ):
            assert problem(answer, 503)["detail"] == "The mail store cannot be reached"
            assert answer.headers["retry-after"]
    await store.close()


async def test_changes_are_announced_once_they_are_committed(store: Store, tmp_path: Any) -> None:
    server = NatsServer(tmp_path / "nats")
    server.start()
    bus = await Bus.connect(server.url, "test")
    heard: asyncio.Queue[DirectoryChanged] = asyncio.Queue()
    try:
        await up(bus)
        await bus.subscribe_hint(directory_changed(), DirectoryChanged, heard.put_nowait)
        await bus.settled()
        async with client_of(make(store, bus)) as client:
            await alice(client)
            assert [(await heard.get()).domain, (await heard.get()).domain] == ["posta.test", "posta.test"]
            problem(await client.post(f"{API}/accounts", json={"address": "alice@posta.test"}), 409)
            await client.put(f"{ALICE}/password", json={"password": "another"})
            assert (await heard.get()).account_id
            await client.post(f"{API}/aliases", json={"address": "a@posta.test", "targets": ["alice@posta.test"]})
            assert await heard.get() == DirectoryChanged()
            assert heard.empty()
    finally:
        await bus.close()
        server.kill()


async def test_the_openapi_document_holds_together(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    [(name, scheme)] = document["components"]["securitySchemes"].items()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    ids = []
    for path, operations in document["paths"].items():
        for operation in operations.values():
            ids.append(operation["operationId"])
            assert (operation.get("security") == [{name: []}]) == path.startswith(API), path
            assert not path.startswith(API) or {"401", "422", "503"} <= set(operation["responses"])
    assert len(ids) == len(set(ids))
    for reference in _references(document):
        place: Any = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]
    assert "ValidationError" not in document["components"]["schemas"]  # ours are problems


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for value in node.values() for found in _references(value)]
    return [found for value in node for found in _references(value)] if isinstance(node, list) else []


async def test_the_doctor_by_http(client: httpx.AsyncClient) -> None:
    answer = await client.get(f"{API}/doctor")
    assert answer.status_code == 200, answer.text
    found = [(each["check"], each["state"]) for each in answer.json()]
    assert ("store", "ok") in found
    assert ("bus", "wrong") in found
