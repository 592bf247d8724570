"""Makes the directory what was declared, one transaction for each thing that differs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import Literal, TypeVar

from services.admin.declared import Account, Alias, Declaration, Domain, write
from services.core.address import parse
from services.core.auth import enroll, passwords
from services.core.dkim.rotation import Rotation
from services.core.ids import AccountId
from services.core.size import short
from services.core.store import accounts, credentials, quarantine, sending
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
        for domain in declared.names:
            if domain not in domains:
                await self._do(partial(accounts.create_domain, domain=domain), domain)
                yield f"domain {domain} added"
        policies = await quarantine.policies(self._store, list(declared.names))
        for one in declared.domains:
            if line := await self._policy(one, policies.get(one.domain, quarantine.Policy())):
                yield line
        held = {each.address: each async for each in _accounts(self._store)}
        for account in declared.accounts:
            async for line in self._account(account, held.get(account.address)):
                yield line
        aliases = {each.address: set(each.targets) async for each in _aliases(self._store)}
        for alias in declared.aliases:
            ours = domains.union(declared.names)
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

    async def _policy(self, declared: Domain, held: quarantine.Policy) -> str:
        """What was changed of what the domain does about held mail; empty where nothing had to be."""
        asked = declared.policy
        after = quarantine.Policy(
            held.on_held if asked.held_mail is None else asked.held_mail,
            held.notify_sender if asked.notify_sender is None else asked.notify_sender,
            held.digest if asked.digest is None else asked.digest,
        )
        if held == after:
            return ""
        set_policy = partial(quarantine.set_policy, on_held=after.on_held, notify_sender=after.notify_sender)
        await self._do(partial(set_policy, domain=declared.domain, digest=after.digest))
        told = f"senders {'are told at once' if after.notify_sender else 'are not told at once'}"
        return f"domain {declared.domain}: held mail is {_HEARD[after.on_held]}, {told}, " + (
            "recipients get a digest" if after.digest else "recipients get no digest"
        )

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
        limits = _limits(declared, held)
        if limits != (held.send_hour, held.send_day):
            await self._do(partial(sending.set_limits, account_id=one, hour=limits[0], day=limits[1]), account_id=one)
            yield f"account {address} may send to {_words(limits[0])} an hour and {_words(limits[1])} a day"
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
        for domain in sorted(domains - set(declared.names)):
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
        for name, limit in (("recipientsPerHour", account.send_hour), ("recipientsPerDay", account.send_day)):
            if limit is not None:
                row[name] = limit
        people.append(row)
    names = [each async for each in _domains(store)]
    policies = await quarantine.policies(store, names)
    return write(
        [_declared(name, policies.get(name, quarantine.Policy())) for name in names],
        people,
        [{"address": each.address, "targets": list(each.targets)} async for each in _aliases(store)],
    )


_HEARD = {quarantine.REFUSE: "refused at the door", quarantine.ACCEPT: "accepted"}


def _declared(domain: str, policy: quarantine.Policy) -> str | dict[str, object]:
    """The domain as a declaration has it: what is as always needs no words."""
    usual = quarantine.Policy()
    if policy == usual:
        return domain
    words = {"on_held": "heldMail", "notify_sender": "notifySender", "digest": "digest"}
    differs = {words[name]: fact for name, fact in policy._asdict().items() if fact != getattr(usual, name)}
    return {"domain": domain, "policy": differs}


def _limits(declared: Account, held: accounts.Account | None) -> tuple[int | None, int | None]:
    """What the account may send to an hour and a day, where it says so or as it was; None: as set for all."""
    hour, day = declared.recipients_per_hour, declared.recipients_per_day
    was = (held.send_hour, held.send_day) if held is not None else (None, None)
    return was[0] if hour == "kept" else hour, was[1] if day == "kept" else day


def _words(limit: int | None) -> str:
    return "as many as set for all" if limit is None else str(limit) if limit else "any number"


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
    if (limits := _limits(declared, None)) != (None, None):
        await sending.set_limits(conn, account_id, *limits)


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
