"""Makes the directory what was declared, one transaction for each thing that differs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import Literal, TypeVar

from services.admin.declared import Account, Alias, Declaration, write
from services.core.address import parse
from services.core.auth import enroll, passwords
from services.core.dkim.rotation import Rotation
from services.core.ids import AccountId
from services.core.size import short
from services.core.store import accounts, credentials
from services.core.store.engine import Connection, Store

PAGE = 1000
_Row = TypeVar("_Row")
Announce = Callable[[str, AccountId | None], Awaitable[object]]
"""Told of each change after its commit: the domain or the account it is about."""


class Reconciler:
    """One run. `dry` only tells what a run would do."""

    def __init__(
        self, store: Store, announce: Announce, rotation: Rotation, *, prune: bool = False, dry: bool = False
    ) -> None:
        self._store, self._announce, self._rotation, self._prune, self._dry = store, announce, rotation, prune, dry

    async def run(self, declared: Declaration) -> AsyncIterator[str]:
        """Do it, telling each change.

        Raises `AccountError`, `BadPassword`, `BadDeclaration`, `KeyUnusable`, `StoreUnavailable`.
        """
        domains = {each async for each in _domains(self._store)}
        for domain in declared.domains:
            if domain not in domains:
                await self._do(partial(accounts.create_domain, domain=domain), domain)
                yield f"domain {domain} added"
        held = {each.address: each async for each in _accounts(self._store)}
        for account in declared.accounts:
            async for line in self._account(account, held.get(account.address)):
                yield line
        aliases = {each.address: set(each.targets) async for each in _aliases(self._store)}
        for alias in declared.aliases:
            ours = domains.union(declared.domains)
            for line in await self._alias(alias, aliases.get(alias.address, set()), ours):
                yield line
        for key in declared.dkim:
            held_keys = await self._rotation.keys(key.domain)
            if all(each.selector != key.selector for each in held_keys):
                if not self._dry:
                    await self._rotation.adopt(key.domain, key.selector, key.pem())
                yield f"DKIM key {key.selector} of {key.domain} is kept, to be activated"
        if self._prune:
            async for line in self._pruned(declared, domains, held, aliases):
                yield line

    # ---- what is declared --------------------------------------------------------------------------------------

    async def _account(self, declared: Account, held: accounts.Account | None) -> AsyncIterator[str]:
        address, secret = declared.address, declared.secret()
        domain = address.rpartition("@")[2]
        if held is None:
            await self._do(partial(_create, declared=declared, secret=secret), domain)
            yield f"account {address} added"
            return
        one = held.account_id
        if declared.name is not None and declared.name != held.display_name:
            await self._do(partial(accounts.rename, account_id=one, display_name=declared.name), account_id=one)
            yield f"account {address} is named {declared.name}"
        if declared.quota != "kept" and declared.quota != held.quota_octets:
            await self._do(partial(accounts.set_quota, account_id=one, quota_octets=declared.quota), account_id=one)
            yield f"account {address} may hold {short(declared.quota)}"
        if declared.suspended is not None and declared.suspended != (held.status == accounts.SUSPENDED):
            change = accounts.suspend if declared.suspended else accounts.activate
            await self._do(partial(change, account_id=one), account_id=one)
            yield f"account {address} is {'suspended' if declared.suspended else 'active'}"
        if secret is not None and not await self._has_password(address, secret):
            await self._do(partial(enroll.set_password, account_id=one, password=secret), account_id=one)
            yield f"account {address} has a new password"

    async def _has_password(self, address: str, secret: str) -> bool:
        async with self._store.query("admin.credentials") as conn:
            owner = (await credentials.find(conn, address)).owner
        return owner is not None and passwords.matching(owner.keys, secret)[0] is not None

    async def _alias(self, declared: Alias, held: set[str], ours: set[str]) -> list[str]:
        wanted = {_kept_as(target, ours) for target in declared.targets}
        more, less = sorted(wanted - held), sorted(held - wanted)

        async def change(conn: Connection) -> None:
            if more:
                await accounts.add_alias(conn, declared.address, more)
            for target in less:
                await accounts.remove_alias(conn, declared.address, target)

        if more or less:
            await self._do(change)
        return [
            *(f"alias {declared.address} leads to {target}" for target in more),
            *(f"alias {declared.address} leads no more to {target}" for target in less),
        ]

    # ---- what is not -------------------------------------------------------------------------------------------

    async def _pruned(
        self,
        declared: Declaration,
        domains: set[str],
        held: dict[str, accounts.Account],
        aliases: dict[str, set[str]],
    ) -> AsyncIterator[str]:
        for name in sorted(aliases.keys() - {alias.address for alias in declared.aliases}):
            await self._do(partial(accounts.remove_alias, address=name))
            yield f"alias {name} removed"
        kept = set()
        for address in sorted(held.keys() - {account.address for account in declared.accounts}):
            one = held[address]
            if one.used_items:
                # A line that is missing from a file shall not cost anybody their mail.
                kept.add(address.rpartition("@")[2])
                if one.status != accounts.SUSPENDED:
                    await self._do(partial(accounts.suspend, account_id=one.account_id), account_id=one.account_id)
                    yield f"account {address} is suspended: it is not declared, and it holds mail"
                continue
            await self._do(partial(accounts.delete, account_id=one.account_id), account_id=one.account_id)
            yield f"account {address} removed"
        for domain in sorted(domains - set(declared.domains)):
            if domain in kept:
                yield f"domain {domain} is kept: it is not declared, and accounts in it hold mail"
                continue
            await self._do(partial(accounts.delete_domain, domain=domain), domain)
            yield f"domain {domain} removed"

    async def _do(
        self, work: Callable[[Connection], Awaitable[object]], domain: str = "", account_id: AccountId | None = None
    ) -> None:
        if self._dry:
            return
        async with self._store.begin("admin.apply") as conn:
            await work(conn)
        await self._announce(domain, account_id)


async def exported(store: Store) -> str:
    """Everything `apply` would make, as YAML. Without passwords: nobody knows them."""
    people: list[dict[str, object]] = []
    async for account in _accounts(store):
        row: dict[str, object] = {"address": account.address, "name": account.display_name}
        if account.quota_octets is not None:
            row["quota"] = short(account.quota_octets)
        if account.status == accounts.SUSPENDED:
            row["suspended"] = True
        people.append(row)
    return write(
        [each async for each in _domains(store)],
        people,
        [{"address": each.address, "targets": list(each.targets)} async for each in _aliases(store)],
    )


def _kept_as(target: str, ours: set[str]) -> str:
    """How the store writes a target: another host may tell "Bob" from "bob" (RFC 5321 2.4), we do not."""
    parsed = parse(target)
    return parsed.key if parsed.domain in ours and not str(parsed).startswith('"') else str(parsed)


async def _create(conn: Connection, declared: Account, secret: str | None) -> None:
    quota: int | Literal["kept"] | None = declared.quota
    account_id = await accounts.create(
        conn, declared.address, display_name=declared.name or "", quota_octets=None if quota == "kept" else quota
    )
    if secret is not None:
        await enroll.set_password(conn, account_id, secret)
    if declared.suspended:
        await accounts.suspend(conn, account_id)


Page = Callable[..., Awaitable[Sequence[_Row]]]


async def _every(store: Store, name: str, page: Page[_Row], key: Callable[[_Row], str]) -> AsyncIterator[_Row]:
    """All rows of a listing that is read by pages, each from the `key` behind which it goes on."""
    after = ""
    while True:
        async with store.query(name) as conn:
            rows = await page(conn, limit=PAGE, after=after)
        for each in rows:
            yield each
        if len(rows) < PAGE:
            return
        after = key(rows[-1])


def _domains(store: Store) -> AsyncIterator[str]:
    return _every(store, "admin.domains", accounts.list_domains, str)


def _accounts(store: Store) -> AsyncIterator[accounts.Account]:
    return _every(store, "admin.accounts", accounts.list_accounts, attrgetter("address"))


def _aliases(store: Store) -> AsyncIterator[accounts.Alias]:
    return _every(store, "admin.aliases", accounts.list_aliases, attrgetter("address"))
