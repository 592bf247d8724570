"""`posta token` as a postmaster types it, on a real Postgres and without NATS."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from services.core.store import accounts, tokens
from services.core.store.engine import Store
from services.dev.token_verbs import moment_of
from services.dev.trouble import Trouble
from tests.unit.dev.test_queue_verbs import Posta, posta, refused, said

__all__ = ["posta"]


async def test_a_token_is_shown_once_and_good_until_it_is_revoked(store: Store, posta: Posta) -> None:
    assert await said(posta, "token", "list") == ""
    unknown = await refused(posta, "token", "create", "acme", "--domain", "acme.test")
    assert unknown == (1, "posta: acme.test is no domain of ours: `posta domain add acme.test` makes it one")
    for name in ("acme.test", "acme.example"):
        await said(posta, "domain", "add", name)
    words = ("token", "create", "acme", "--domain", "ACME.test", "--domain", "acme.example", "--expires", "2099-01-31")
    shown = await said(posta, *words)
    async with store.query("test") as conn:
        found = await tokens.bearer(conn, shown)
    assert found is not None
    assert found.domains == ("acme.example", "acme.test")
    assert found.expires_at == datetime(2099, 1, 31, tzinfo=UTC)
    for listed in (await said(posta, "token", "list"), await said(posta, "token", "list", "--json")):
        assert "acme.example" in listed
        assert shown.partition(".")[2] not in listed
    code, again = await refused(posta, *words)
    assert (code, again) == (1, "posta: acme exists already: `posta token revoke acme` makes room")
    assert await said(posta, "token", "revoke", "acme") == "token acme is revoked"
    async with store.query("test") as conn:
        assert await tokens.bearer(conn, shown) is None
    made = json.loads(await said(posta, *words[:5], "--json"))
    assert (made["name"], made["domains"], made["expires_at"]) == ("acme", ["acme.test"], None)
    assert made["token"].startswith("acme.")
    assert made["token"] != shown


async def test_a_domain_that_goes_away_takes_no_token_with_it(store: Store, posta: Posta) -> None:
    async with store.begin("test") as conn:
        for name in ("one.test", "two.test"):
            await accounts.create_domain(conn, name)
        _, shown = await tokens.create(conn, "both", ["one.test", "two.test"])
    await said(posta, "domain", "remove", "one.test")
    async with store.query("test") as conn:
        found = await tokens.bearer(conn, shown)
    assert found is not None
    assert found.domains == ("two.test",)


@pytest.mark.parametrize(
    ("given", "moment"),
    [
        ("2027-01-31", "2027-01-31T00:00:00+00:00"),
        ("2027-01-31T12:30", "2027-01-31T12:30:00+00:00"),
        ("2027-01-31T12:30+02:00", "2027-01-31T12:30:00+02:00"),
    ],
)
def test_when_a_token_ends(given: str, moment: str) -> None:
    assert moment_of(given).isoformat() == moment


@pytest.mark.parametrize("given", ["tomorrow", "31.01.2027", "2027-02-30", "90d"])
def test_what_is_no_date(given: str) -> None:
    with pytest.raises(Trouble, match="2027-01-31"):
        moment_of(given)
