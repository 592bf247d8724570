"""Provisioning: what is refused, what two at once come to, and that deleting leaves nothing."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from services.core.address import BadAddress
from services.core.auth.passwords import derive
from services.core.store import accounts, credentials, folders
from services.core.store.accounts import AlreadyExists, InUse, NoSuchAccount, NoSuchAddress, NoSuchDomain
from services.core.store.engine import Store
from services.core.store.tables import metadata


async def test_an_account_is_born_whole(store: Store) -> None:
    async with store.begin("test") as conn:
        assert await accounts.create_domain(conn, "BÜCHER.Test") == "xn--bcher-kva.test"
        account_id = await accounts.create(conn, "Alice@bücher.test", display_name="Alice", quota_octets=5)
        account = await accounts.get(conn, "aLICE@bücher.test")
        assert account == await accounts.get_by_id(conn, account_id)
        assert [folder.role for folder in await folders.list_folders(conn, account_id)] == [
            role for _, role in folders.DEFAULTS
        ]
        dn = (await conn.execute(text("SELECT legacy_dn FROM accounts"))).scalar_one()
    assert account[:7] == (account_id, "alice@xn--bcher-kva.test", "Alice", "active", 5, 0, 0)
    assert account.created_at <= datetime.now(UTC)
    assert dn.endswith(f"/cn=recipients/cn={account.mailbox_guid.hex}")


async def test_what_is_refused(store: Store) -> None:
    async with store.begin("test") as conn:
        await accounts.create_domain(conn, "posta.test")
        alice = await accounts.create(conn, "alice@posta.test")
        await accounts.add_alias(conn, "info@posta.test", ["alice@posta.test"])
        for address in ("Alice@posta.test", "info@posta.test"):
            with pytest.raises(AlreadyExists):
                await accounts.create(conn, address)
            with pytest.raises(AlreadyExists):
                await accounts.add_address(conn, alice, address)
        with pytest.raises(AlreadyExists):
            await accounts.create_domain(conn, "Posta.Test")
        with pytest.raises(AlreadyExists):
            await accounts.add_alias(conn, "alice@posta.test", ["bob@example.org"])
        with pytest.raises(AlreadyExists):
            await accounts.add_alias(conn, "info@posta.test", ["ALICE@posta.test"])
        with pytest.raises(NoSuchDomain):
            await accounts.create(conn, "alice@example.org")
        with pytest.raises(NoSuchDomain):
            await accounts.delete_domain(conn, "example.org")
        with pytest.raises(InUse):
            await accounts.delete_domain(conn, "posta.test")
        with pytest.raises(InUse):
            await accounts.remove_address(conn, alice, "alice@posta.test")
        with pytest.raises(NoSuchAddress):
            await accounts.remove_alias(conn, "alice@posta.test")
        for bad in ('"a b"@posta.test', "@posta.test", "alice"):
            with pytest.raises(BadAddress):
                await accounts.create(conn, bad)


async def test_two_at_once_get_one_address(store: Store) -> None:
    async with store.begin("test") as conn:
        await accounts.create_domain(conn, "posta.test")

    async def create() -> object:
        async with store.begin("test") as conn:
            return await accounts.create(conn, "alice@posta.test")

    outcomes = await asyncio.gather(*(create() for _ in range(4)), return_exceptions=True)
    assert sum(isinstance(each, AlreadyExists) for each in outcomes) == 3
    async with store.begin("test") as conn:
        assert len(await accounts.list_accounts(conn)) == 1


async def test_lists_come_in_pages(store: Store) -> None:
    async with store.begin("test") as conn:
        for domain in ("b.test", "a.test"):
            await accounts.create_domain(conn, domain)
            for name in ("bob", "alice", "carol"):
                await accounts.create(conn, f"{name}@{domain}")
        await accounts.add_address(conn, (await accounts.get(conn, "bob@a.test")).account_id, "robert@a.test")
        await accounts.add_alias(conn, "@a.test", ["bob@a.test"])
        await accounts.add_alias(conn, "team@a.test", ["carol@b.test", "Far@Example.org"])
        assert await accounts.list_domains(conn) == ["a.test", "b.test"]
        assert await accounts.list_domains(conn, after="a.test") == ["b.test"]
        first = await accounts.list_accounts(conn, limit=4)
        rest = await accounts.list_accounts(conn, limit=4, after=first[-1].address)
        addresses = [each.address for each in first + rest]
        assert addresses == sorted(addresses)
        assert len(addresses) == 6
        assert [each.address for each in await accounts.list_accounts(conn, domain="a.test")] == [
            "alice@a.test", "bob@a.test", "carol@a.test",
        ]  # fmt: skip
        assert set(await accounts.list_aliases(conn)) == {
            ("@a.test", ("bob@a.test",)),
            ("team@a.test", ("Far@example.org", "carol@b.test")),
        }
        assert [each.address for each in await accounts.list_aliases(conn, target="carol@b.test")] == ["team@a.test"]
        await accounts.remove_alias(conn, "team@a.test", "carol@B.test")
        assert await accounts.list_aliases(conn, after="@a.test") == [("team@a.test", ("Far@example.org",))]


async def test_a_deleted_account_leaves_nothing_and_its_address_is_free(store: Store) -> None:
    async with store.begin("test") as conn:
        await accounts.create_domain(conn, "posta.test")
        alice = await accounts.create(conn, "alice@posta.test")
        bob = await accounts.create(conn, "bob@posta.test")
        await accounts.add_address(conn, alice, "a@posta.test")
        await accounts.add_alias(conn, "info@posta.test", ["a@posta.test", "bob@posta.test"])
        await accounts.add_alias(conn, "only@posta.test", ["alice@posta.test"])
        await credentials.set_password(conn, alice, derive("secret"))
        await accounts.delete(conn, alice)
        for table in metadata.sorted_tables:
            if "account_id" in table.c:
                assert not (await conn.execute(table.select().where(table.c.account_id == alice))).all(), table.name
        assert await accounts.list_aliases(conn) == [("info@posta.test", ("bob@posta.test",))]
        with pytest.raises(NoSuchAccount):
            await accounts.delete(conn, alice)
        for change in (accounts.suspend(conn, alice), accounts.set_quota(conn, alice, 1)):
            with pytest.raises(NoSuchAccount):
                await change
        assert await accounts.create(conn, "alice@posta.test") not in (alice, bob)


async def test_an_accounts_credentials_share_their_salt(store: Store) -> None:
    async with store.begin("test") as conn:
        await accounts.create_domain(conn, "posta.test")
        alice = await accounts.create(conn, "alice@posta.test")
        assert await credentials.salt(conn, alice) is None
        await credentials.set_password(conn, alice, derive("one"))
        salt = await credentials.salt(conn, alice)
        await credentials.set_password(conn, alice, derive("two", salt))
        assert await credentials.salt(conn, alice) == salt
        assert [each.kind for each in await credentials.list_credentials(conn, alice)] == ["password"]
