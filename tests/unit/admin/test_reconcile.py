"""A declaration against a real directory: made, changed, left alone, taken away; never mail."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from sqlalchemy import text

from services.admin.declared import read
from services.admin.reconcile import Reconciler, exported
from services.core.dkim.rotation import Rotation
from services.core.dns import Dns
from services.core.ids import AccountId
from services.core.store import accounts, quarantine
from services.core.store.engine import Store

HOUSE = """
domains: [example.org]
accounts:
  - {address: ann@example.org, name: Ann, quota: 10G, password: first}
  - {address: ben@example.org}
aliases:
  - {address: team@example.org, targets: [ann@example.org, Ben@example.org, Other@Elsewhere.test]}
  - {address: "@example.org", targets: [ann@example.org]}
"""


class Run:
    """Reconciles in the store and keeps what was told."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.told: list[tuple[str, AccountId | None]] = []

    async def __call__(self, document: str, *, prune: bool = False, dry: bool = False) -> list[str]:
        async def tell(domain: str, account_id: AccountId | None) -> None:
            self.told.append((domain, account_id))

        rotation = Rotation(self.store, Dns, None)
        return [line async for line in Reconciler(self.store, tell, rotation, prune=prune, dry=dry).run(read(document))]


@pytest.fixture
def run(store: Store) -> Run:
    return Run(store)


async def test_everything_declared_is_made_once(run: Run) -> None:
    assert len(await run(HOUSE)) == 7
    told = len(run.told)
    assert told > 0
    assert await run(HOUSE) == []
    assert len(run.told) == told


async def test_only_what_differs_is_changed(run: Run) -> None:
    await run(HOUSE)
    changed = HOUSE.replace("10G", "20G").replace("first", "second").replace("name: Ann", "name: Anna")
    assert await run(changed.replace("ann@example.org, Ben", "Ben")) == [
        "account ann@example.org is named Anna",
        "account ann@example.org may hold 20G",
        "account ann@example.org has a new password",
        "alias team@example.org leads no more to ann@example.org",
    ]


async def test_what_is_not_declared_of_an_account_is_left_alone(run: Run, store: Store) -> None:
    await run(HOUSE)
    async with store.begin("test") as conn:
        ann = await accounts.get(conn, "ann@example.org")
        await accounts.suspend(conn, ann.account_id)
        await accounts.set_quota(conn, ann.account_id, 1)
    assert await run("{domains: [example.org], accounts: [{address: ann@example.org}]}") == []
    assert await run("{accounts: [{address: ann@example.org, suspended: false, quota: none}]}") == [
        "account ann@example.org may hold none",
        "account ann@example.org is active",
    ]


async def test_a_declared_dkim_key_is_kept_once(run: Run, tmp_path: Path) -> None:
    pem = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "key").write_bytes(pem)
    document = f"{{domains: [example.org], dkim: [{{domain: example.org, selector: s1, keyFile: {tmp_path}/key}}]}}"
    assert (await run(document))[1:] == ["DKIM key s1 of example.org is kept, to be activated"]
    assert await run(document) == []


async def test_a_dry_run_tells_and_does_nothing(run: Run, store: Store) -> None:
    assert len(await run(HOUSE, dry=True)) == 7
    assert "example.org" not in await exported(store)
    assert run.told == []


async def test_pruning_takes_away_what_is_not_declared_but_no_mail(run: Run, store: Store) -> None:
    await run(HOUSE)
    await run("{domains: [old.test, full.test], accounts: [{address: a@old.test}, {address: b@full.test}]}")
    async with store.begin("test") as conn:
        full = await accounts.get(conn, "b@full.test")
        await conn.execute(
            text("UPDATE account_seq SET used_items = 1 WHERE account_id = :id"), {"id": full.account_id}
        )
    pruned = await run(HOUSE.replace('  - {address: "@example.org", targets: [ann@example.org]}', ""), prune=True)
    assert pruned == [
        "alias @example.org removed",
        "account a@old.test removed",
        "account b@full.test is suspended: it is not declared, and it holds mail",
        "domain full.test is kept: it is not declared, and accounts in it hold mail",
        "domain old.test removed",
    ]
    again = await run(HOUSE.replace('  - {address: "@example.org", targets: [ann@example.org]}', ""), prune=True)
    assert again == ["domain full.test is kept: it is not declared, and accounts in it hold mail"]


async def test_what_is_exported_changes_nothing_when_it_is_applied(run: Run, store: Store) -> None:
    await run(HOUSE + "\n")
    await run("{accounts: [{address: ben@example.org, suspended: true}]}")
    document = await exported(store)
    assert "first" not in document
    assert await run(document, prune=True) == []


async def test_a_domains_policy_is_declared_changed_and_otherwise_left_alone(run: Run, store: Store) -> None:
    plain = "{domains: [one.test, two.test]}"
    held = "{domain: two.test, policy: {heldMail: accept, notifySender: true}}"
    assert await run(plain) == ["domain one.test added", "domain two.test added"]
    # By its name alone as well: the chart names the first domain by itself.
    declared = f"{{domains: [one.test, two.test, {held}]}}"
    said = ["domain two.test: held mail is accepted, senders are told at once, recipients get a digest"]
    assert await run(declared, dry=True) == said
    assert await run(declared) == said
    assert await run(declared) == []
    assert await run(plain) == []
    policies = await quarantine.policies(store, ["one.test", "two.test"])
    assert policies == {"one.test": quarantine.Policy(), "two.test": quarantine.Policy("accept", True, True)}
    assert read(await exported(store)).domains[1] == read(f"{{domains: [{held}]}}").domains[0]
    assert "domain: one.test" not in await exported(store)


async def test_an_accounts_sending_limits_are_declared_and_exported(run: Run, store: Store) -> None:
    await run("{domains: [a.test], accounts: [{address: a@a.test, recipientsPerHour: 5}, {address: b@a.test}]}")
    document = await exported(store)
    assert await run(document, prune=True) == []
    assert await run("{accounts: [{address: a@a.test}, {address: b@a.test, recipientsPerDay: 0}]}") == [
        "account b@a.test may send to as many as set for all an hour and any number a day"
    ]
    assert await run(document, prune=True) == []
    assert await run("{accounts: [{address: a@a.test, recipientsPerHour: null}]}") == [
        "account a@a.test may send to as many as set for all an hour and as many as set for all a day"
    ]
