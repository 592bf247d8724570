"""Domains, accounts and the addresses that lead to them, as provisioning writes them; the directory asks `places`.

Every change to an address first locks its domain's row, so that "is it free?" and "take it" are one step and a domain
cannot vanish beneath a new account. Tell the caches after the commit: `directory.announce`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, TypeAlias

from sqlalchemy import TextClause, bindparam, text
from sqlalchemy import delete as delete_from
from sqlalchemy.ext.asyncio import AsyncConnection

from services.core import address as addresses
from services.core.address import BadAddress
from services.core.ids import AccountId
from services.core.store import folders, numbers, quarantine
from services.core.store.tables import metadata

Domains: TypeAlias = list[str] | None
"""Where a list is kept `within` so many domains; None: everywhere."""

ACTIVE, SUSPENDED = "active", "suspended"
_LEGACY_DN = "/o=posta/ou=exchange administrative group (fydibohf23spdlt)/cn=recipients/cn={}"


class AccountError(Exception):
    """Provisioning was refused; one of the kinds below. The text names the address or domain."""


class AlreadyExists(AccountError):
    """The domain, address or alias is there already."""


class NoSuchDomain(AccountError):
    """The domain is not ours."""


class NoSuchAccount(AccountError):
    """No account has this address or number."""


class NoSuchAddress(AccountError):
    """The alias, or the further address of the account, is not there."""


class InUse(AccountError):
    """Something still depends on it: a domain's addresses, an account's primary address."""


class Account(NamedTuple):
    """One account as people administer it; octets are what its mailbox holds."""

    account_id: AccountId
    address: str
    display_name: str
    status: str
    quota_octets: int | None
    used_octets: int
    used_items: int
    mailbox_guid: uuid.UUID
    created_at: datetime
    sending: str = "active"  # active | paused: mail arrives and is read, none is sent
    send_hour: int | None = None  # recipients an hour; None: as set for all, 0: no limit
    send_day: int | None = None


class Alias(NamedTuple):
    """One alias and everything it leads to; "@domain" is the domain's catch-all."""

    address: str
    targets: tuple[str, ...]


_ADD_DOMAIN = text("INSERT INTO domains (domain) VALUES (:domain) ON CONFLICT DO NOTHING")
_WITHIN = "(cast(:within AS text[]) IS NULL OR {} = ANY(:within))"
_LIST_DOMAINS = text(
    f"SELECT domain FROM domains WHERE domain > :after AND {_WITHIN.format('domain')} ORDER BY domain LIMIT :limit"  # noqa: S608 - constant
)
_LOCK_DOMAIN = text("SELECT domain FROM domains WHERE domain = :domain FOR UPDATE")
_DOMAIN_IN_USE = text("SELECT EXISTS (SELECT FROM addresses WHERE domain = :domain)")
_IS_OURS = text("SELECT EXISTS (SELECT FROM domains WHERE domain = :domain)")
_DELETE_DOMAIN = text("""
WITH keys AS (DELETE FROM dkim_keys WHERE domain = :domain),
  tokens AS (UPDATE admin_tokens SET domains = array_remove(domains, :domain) WHERE :domain = ANY(domains))
DELETE FROM domains WHERE domain = :domain
""")

_ACCOUNT = """
SELECT a.account_id, a.address, a.display_name, a.status, a.quota_octets, s.used_octets, s.used_items, a.mailbox_guid,
  a.created_at, a.sending, a.send_hour, a.send_day
FROM addresses d JOIN accounts a USING (account_id) JOIN account_seq s USING (account_id)
WHERE d.kind = 'account' AND
"""
_GET = text(_ACCOUNT + "d.address = :address")
_GET_BY_ID = text(_ACCOUNT + "a.account_id = :account_id AND d.address = a.address")
_LIST = text(
    _ACCOUNT + "d.address = a.address AND d.address > :after AND (:domain = '' OR d.domain = :domain) AND "
    f"{_WITHIN.format('d.domain')} ORDER BY d.address LIMIT :limit"
)
_TAKEN = text("SELECT kind FROM addresses WHERE address = :address LIMIT 1")
_CREATE = text("""
INSERT INTO accounts (address, display_name, quota_octets, mailbox_guid, legacy_dn)
VALUES (:address, :display_name, :quota_octets, :mailbox_guid, :legacy_dn) RETURNING account_id
""")
_CREATE_SEQ = text("INSERT INTO account_seq (account_id) VALUES (:account_id)")
_ADD_ADDRESS = text("""
INSERT INTO addresses (address, target, domain, kind, account_id)
VALUES (:address, :target, :domain, :kind, :account_id)
ON CONFLICT DO NOTHING
""")
_PRIMARY = text("SELECT address FROM accounts WHERE account_id = :account_id FOR UPDATE")
_RENAME = text("UPDATE accounts SET display_name = :display_name WHERE account_id = :account_id")
_SET_STATUS = text("UPDATE accounts SET status = :status WHERE account_id = :account_id")
_SET_QUOTA = text("UPDATE accounts SET quota_octets = :quota_octets WHERE account_id = :account_id")
_REMOVE_ADDRESS = text("""
DELETE FROM addresses WHERE address = :address AND kind = 'account' AND account_id = :account_id
""")
_LIST_ADDRESSES = text("""
SELECT address FROM addresses WHERE account_id = :account_id AND kind = 'account' ORDER BY address <> target, address
""")
_REMOVE_ALIAS = text("""
DELETE FROM addresses
WHERE address = :address AND kind = 'alias' AND (cast(:target AS text) IS NULL OR lower(target) = lower(:target))
""")
_LIST_ALIASES = text(f"""
SELECT address, array_agg(target ORDER BY target) AS targets FROM addresses
WHERE kind = 'alias' AND address > :after AND (:domain = '' OR domain = :domain) AND {_WITHIN.format("domain")}
  AND (:target = '' OR address IN (SELECT address FROM addresses WHERE kind = 'alias' AND target = :target))
GROUP BY address ORDER BY address LIMIT :limit
""")  # noqa: S608 - constant
# An alias that led to a deleted account must not lead to whoever is given the address next.
_DROP_ALIASES_TO = text("""
DELETE FROM addresses WHERE kind = 'alias'
  AND target IN (SELECT address FROM addresses WHERE account_id = :account_id AND kind = 'account')
""")
# Mail on its way (spool_recipients) stays: delivery finds the account gone and tells the sender.
_DELETE_EVERYWHERE = tuple(
    delete_from(table).where(table.c.account_id == bindparam("account_id"))
    for table in reversed(metadata.sorted_tables)
    if "account_id" in table.c and table.info["distribution"] in ("account_id", "reference")
)


# ---- domains ---------------------------------------------------------------------------------------------------


async def create_domain(conn: AsyncConnection, domain: str) -> str:
    """Make the domain ours; returns its canonical name. Raises `AlreadyExists`, `BadAddress`."""
    name = addresses.domain(domain)
    if (await conn.execute(_ADD_DOMAIN, {"domain": name})).rowcount == 0:
        raise AlreadyExists(name)
    return name


async def list_domains(
    conn: AsyncConnection, *, limit: int = 100, after: str = "", within: Domains = None
) -> list[str]:
    """The domains that follow `after`, in order of name."""
    asked = {"after": after, "limit": limit, "within": within}
    return [row[0] for row in await conn.execute(_LIST_DOMAINS, asked)]


async def delete_domain(conn: AsyncConnection, domain: str) -> None:
    """Give the domain up; raises `NoSuchDomain`, and `InUse` while accounts or aliases are in it."""
    name = addresses.domain(domain)
    await _lock_domain(conn, name)
    if (await conn.execute(_DOMAIN_IN_USE, {"domain": name})).scalar_one():
        raise InUse(name)
    await conn.execute(_DELETE_DOMAIN, {"domain": name})


async def _lock_domain(conn: AsyncConnection, name: str) -> None:
    if (await conn.execute(_LOCK_DOMAIN, {"domain": name})).one_or_none() is None:
        raise NoSuchDomain(name)


# ---- accounts --------------------------------------------------------------------------------------------------


async def create(
    conn: AsyncConnection, address: str, *, display_name: str = "", quota_octets: int | None = None
) -> AccountId:
    """Make an account with its folders; raises `AlreadyExists`, `NoSuchDomain`, `BadAddress`. `None`: no quota."""
    key, domain = _canonical(address)
    await _claim(conn, key, domain)
    guid = uuid.uuid4()
    row = await conn.execute(
        _CREATE,
        {
            "address": key,
            "display_name": display_name,
            "quota_octets": quota_octets,
            "mailbox_guid": guid,
            "legacy_dn": _LEGACY_DN.format(guid.hex),
        },
    )
    account_id = AccountId(row.scalar_one())
    await _add(conn, key, key, domain, "account", account_id)
    await conn.execute(_CREATE_SEQ, {"account_id": account_id})
    await folders.create_defaults(conn, account_id)
    return account_id


async def get(conn: AsyncConnection, address: str) -> Account:
    """The account that has this address, primary or further; raises `NoSuchAccount`, `BadAddress`."""
    row = (await conn.execute(_GET, {"address": addresses.parse(address).key})).one_or_none()
    if row is None:
        raise NoSuchAccount(address)
    return Account(*row)


async def get_by_id(conn: AsyncConnection, account_id: AccountId) -> Account:
    """The account of that number; raises `NoSuchAccount`."""
    row = (await conn.execute(_GET_BY_ID, {"account_id": account_id})).one_or_none()
    if row is None:
        raise NoSuchAccount(account_id)
    return Account(*row)


async def list_accounts(
    conn: AsyncConnection, *, domain: str = "", limit: int = 100, after: str = "", within: Domains = None
) -> list[Account]:
    """The accounts (of one domain, or all) whose primary address follows `after`, in order of address."""
    asked = {"domain": domain, "limit": limit, "after": after, "within": within}
    return [Account(*row) for row in await conn.execute(_LIST, asked)]


async def rename(conn: AsyncConnection, account_id: AccountId, display_name: str) -> None:
    """Change the name that people see; raises `NoSuchAccount`."""
    await _update(conn, _RENAME, account_id, display_name=display_name)


async def suspend(conn: AsyncConnection, account_id: AccountId) -> None:
    """Refuse its logins and its mail from now on, keeping everything; raises `NoSuchAccount`."""
    await _update(conn, _SET_STATUS, account_id, status=SUSPENDED)


async def activate(conn: AsyncConnection, account_id: AccountId) -> None:
    """Undo `suspend`; raises `NoSuchAccount`."""
    await _update(conn, _SET_STATUS, account_id, status=ACTIVE)


async def set_quota(conn: AsyncConnection, account_id: AccountId, quota_octets: int | None) -> None:
    """Limit what the mailbox may hold; `None` lifts the limit. Raises `NoSuchAccount`."""
    await _update(conn, _SET_QUOTA, account_id, quota_octets=quota_octets)


async def _update(conn: AsyncConnection, statement: TextClause, account_id: AccountId, **values: object) -> None:
    done = await conn.execute(statement, {"account_id": account_id, **values})
    if done.rowcount == 0:
        raise NoSuchAccount(account_id)


async def delete(conn: AsyncConnection, account_id: AccountId) -> None:
    """Remove the account with all its mail and the aliases that led to it; its address is free again.

    Raises `NoSuchAccount`. Waits for the account's writers, and they find it gone.
    """
    try:
        await numbers.lock(conn, account_id)
    except numbers.NoSuchAccount as error:
        raise NoSuchAccount(account_id) from error
    await conn.execute(_DROP_ALIASES_TO, {"account_id": account_id})
    await quarantine.forget_account(conn, account_id)
    for statement in _DELETE_EVERYWHERE:
        await conn.execute(statement, {"account_id": account_id})


# ---- further addresses and aliases -----------------------------------------------------------------------------


async def add_address(conn: AsyncConnection, account_id: AccountId, address: str) -> None:
    """Give the account a further address; raises `AlreadyExists`, `NoSuchDomain`, `NoSuchAccount`, `BadAddress`."""
    key, domain = _canonical(address)
    await _claim(conn, key, domain)
    primary = (await conn.execute(_PRIMARY, {"account_id": account_id})).scalar_one_or_none()
    if primary is None:
        raise NoSuchAccount(account_id)
    await _add(conn, key, primary, domain, "account", account_id)


async def remove_address(conn: AsyncConnection, account_id: AccountId, address: str) -> None:
    """Take a further address away; raises `NoSuchAddress`, and `InUse` for the primary one."""
    key = addresses.parse(address).key
    primary = (await conn.execute(_PRIMARY, {"account_id": account_id})).scalar_one_or_none()
    if key == primary:
        raise InUse(key)
    if (await conn.execute(_REMOVE_ADDRESS, {"account_id": account_id, "address": key})).rowcount == 0:
        raise NoSuchAddress(key)


async def list_addresses(conn: AsyncConnection, account_id: AccountId) -> list[str]:
    """Every address of the account, the primary one first."""
    return [row[0] for row in await conn.execute(_LIST_ADDRESSES, {"account_id": account_id})]


async def add_alias(conn: AsyncConnection, address: str, targets: Sequence[str]) -> None:
    """Let `address` (or "@domain", the catch-all) lead to each target, here or elsewhere, besides those it has.

    Raises `AlreadyExists` when it is an account's address or has one of the targets, `NoSuchDomain`, `BadAddress`.
    """
    key, domain = _canonical(address, catch_all=True)
    await _lock_domain(conn, domain)
    if (await conn.execute(_TAKEN, {"address": key})).scalar_one_or_none() == "account":
        raise AlreadyExists(key)
    for target in targets:
        await _add(conn, key, await _target(conn, target), domain, "alias", None)


async def remove_alias(conn: AsyncConnection, address: str, target: str | None = None) -> None:
    """Take one target from the alias, or with `None` the whole alias; raises `NoSuchAddress`, `BadAddress`."""
    key, _ = _canonical(address, catch_all=True)
    wire = None if target is None else str(addresses.parse(target))
    if (await conn.execute(_REMOVE_ALIAS, {"address": key, "target": wire})).rowcount == 0:
        raise NoSuchAddress(key)


async def list_aliases(
    conn: AsyncConnection,
    *,
    domain: str = "",
    target: str = "",
    limit: int = 100,
    after: str = "",
    within: Domains = None,
) -> list[Alias]:
    """The aliases (of one domain; leading to one target) that follow `after`, each with all its targets."""
    asked = {"domain": domain, "target": target, "limit": limit, "after": after, "within": within}
    return [Alias(row[0], tuple(row[1])) for row in await conn.execute(_LIST_ALIASES, asked)]


async def _target(conn: AsyncConnection, target: str) -> str:
    # Another host may tell "Bob" from "bob" (RFC 5321 2.4); ours are kept as the directory looks them up.
    parsed = addresses.parse(target)
    ours = (await conn.execute(_IS_OURS, {"domain": parsed.domain})).scalar_one()
    return parsed.key if ours and not str(parsed).startswith('"') else str(parsed)


async def _claim(conn: AsyncConnection, key: str, domain: str) -> None:
    await _lock_domain(conn, domain)
    if (await conn.execute(_TAKEN, {"address": key})).one_or_none() is not None:
        raise AlreadyExists(key)


async def _add(
    conn: AsyncConnection, address: str, target: str, domain: str, kind: str, account_id: AccountId | None
) -> None:
    row: Mapping[str, object] = {
        "address": address, "target": target, "domain": domain, "kind": kind, "account_id": account_id,
    }  # fmt: skip
    if (await conn.execute(_ADD_ADDRESS, row)).rowcount == 0:
        raise AlreadyExists(address)


def _canonical(text_: str, *, catch_all: bool = False) -> tuple[str, str]:
    if catch_all and text_.startswith("@"):
        domain = addresses.domain(text_[1:])
        return f"@{domain}", domain
    parsed = addresses.parse(text_)
    # Stored addresses are written back as they are (From, MAIL FROM), so they must read the same on the wire.
    if str(parsed).startswith('"'):
        raise BadAddress("an address of ours may not need quotation marks")
    return parsed.key, parsed.domain
