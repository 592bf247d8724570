"""A digest's link in a browser: what it shows, what it does, and what it never does."""

from typing import Any

import httpx
import pytest

from services.core.ids import SpoolId
from services.core.passes import token
from services.core.store import quarantine
from services.core.store.engine import Store
from tests.unit.core.store.test_quarantine import both, hold, spooled


def path(spool_id: SpoolId, n: int = 0, secret: bytes = bytes(16)) -> str:
    return f"/quarantine/{token(secret, spool_id, n)}"


async def held(store: Store, **more: Any) -> SpoolId:
    return await hold(store, *await both(store), **more)


async def test_to_look_changes_nothing_and_the_button_releases_once(client: httpx.AsyncClient, store: Store) -> None:
    name = await held(store)
    for _ in range(3):
        page = await client.get(path(name, 1))
        assert (page.status_code, "Deliver it to me" in page.text) == (200, True)
    assert await spooled(store) == []
    for _ in range(3):
        assert "released" in (await client.post(path(name, 1))).text
    assert [row.address for row in await spooled(store)] == ["carol@posta.test"]
    assert [each.state for each in (await quarantine.get(store, name)).recipients] == ["held", "released"]
    assert "form" not in (await client.get(path(name, 1))).text.partition("<body>")[2]


async def test_what_strangers_wrote_is_text_on_the_page(client: httpx.AsyncClient, store: Store) -> None:
    nasty = "<script>alert(1)</script>\"'><img src=x>"
    name = await held(store, subject=nasty, from_text=nasty, reason=nasty)
    page = await client.get(path(name))
    assert "<script>" not in page.text
    assert "<img" not in page.text
    assert "&lt;script&gt;" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_link_that_was_not_made_here_is_good_for_nothing(
    client: httpx.AsyncClient, store: Store, method: str
) -> None:
    name = await held(store)
    for wrong in (
        path(name, 0, b"x" * 16),
        path(name, 7),
        path(SpoolId("0" * 26)),
        path(name)[:-1],
        "/quarantine/x%00",
    ):
        assert (await client.request(method, wrong)).status_code == 404
    assert await spooled(store) == []


async def test_a_virus_is_not_released_by_a_link(client: httpx.AsyncClient, store: Store) -> None:
    name = await held(store, kind="virus")
    assert "Deliver" not in (await client.get(path(name))).text
    assert (await client.post(path(name))).status_code == 403
    assert await spooled(store) == []


async def test_what_was_deleted_stays_deleted(client: httpx.AsyncClient, store: Store) -> None:
    name = await held(store)
    await quarantine.delete(store, name)
    assert (await client.post(path(name))).status_code == 410
    assert "has been deleted" in (await client.get(path(name))).text
    assert await spooled(store) == []
