"""DKIM keys of our domains. Their life is told in `services.core.dkim`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.core.store.accounts import NoSuchDomain

ACTIVE, PUBLISHED, RETIRED = "active", "published", "retired"


class Key(NamedTuple):
    """A key as people administer it: without its private half."""

    domain: str
    selector: str
    algorithm: str
    public_key: str
    state: str
    created_at: datetime
    state_since: datetime


class Signer(NamedTuple):
    """What signing needs of a key."""

    selector: str
    private_key: str


_COLUMNS = "domain, selector, algorithm, public_key, state, created_at, state_since"
_LOCK = text("SELECT domain FROM domains WHERE domain = :domain FOR UPDATE")
_IS_OURS = text("SELECT EXISTS (SELECT FROM domains WHERE domain = :domain)")
_LIST = text(f"SELECT {_COLUMNS} FROM dkim_keys WHERE domain = :domain ORDER BY created_at, selector DESC")  # noqa: S608 - constant
_SIGNERS = text("SELECT selector, private_key FROM dkim_keys WHERE domain = :domain AND state = 'active'")
_ADD = text("""
INSERT INTO dkim_keys (domain, selector, algorithm, public_key, private_key, state)
VALUES (:domain, :selector, :algorithm, :public_key, :private_key, 'published')
""")
_RETIRE = text("""
UPDATE dkim_keys SET state = 'retired', state_since = now()
WHERE domain = :domain AND state = 'active' AND NOT selector = ANY(CAST(:selectors AS text[]))
""")
_ACTIVATE = text("""
UPDATE dkim_keys SET state = 'active', state_since = now()
WHERE domain = :domain AND state = 'published' AND selector = ANY(CAST(:selectors AS text[]))
""")
_REMOVE = text(f"""
DELETE FROM dkim_keys
WHERE domain = :domain AND state = 'retired' AND state_since <= now() - make_interval(secs => :after_s)
RETURNING {_COLUMNS}
""")  # noqa: S608 - constant


async def lock(conn: AsyncConnection, domain: str) -> None:
    """Let nobody else change the domain's keys until the transaction ends; raises `NoSuchDomain`."""
    if (await conn.execute(_LOCK, {"domain": domain})).one_or_none() is None:
        raise NoSuchDomain(domain)


async def list_keys(conn: AsyncConnection, domain: str) -> list[Key]:
    """Every key of the domain, the oldest first; raises `NoSuchDomain`."""
    if not (await conn.execute(_IS_OURS, {"domain": domain})).scalar_one():
        raise NoSuchDomain(domain)
    return [Key(*row) for row in await conn.execute(_LIST, {"domain": domain})]


async def signers(conn: AsyncConnection, domain: str) -> list[Signer]:
    """The keys that mail of the domain is signed with now."""
    return [Signer(*row) for row in await conn.execute(_SIGNERS, {"domain": domain})]


async def add(
    conn: AsyncConnection, domain: str, selector: str, *, algorithm: str, public_key: str, private_key: str
) -> None:
    """Keep a new key as published, under a lock of the domain and a selector that is not in use."""
    row = {"domain": domain, "selector": selector, "algorithm": algorithm}
    await conn.execute(_ADD, {**row, "public_key": public_key, "private_key": private_key})


async def activate(conn: AsyncConnection, domain: str, selectors: Sequence[str]) -> int:
    """Sign with these published keys from now on, and with no others; returns how many they are."""
    names = {"domain": domain, "selectors": list(selectors)}
    await conn.execute(_RETIRE, names)
    return (await conn.execute(_ACTIVATE, names)).rowcount


async def remove_retired(conn: AsyncConnection, domain: str, after_s: float) -> list[Key]:
    """Delete the keys that have been retired for so long, and say which they were."""
    return [Key(*row) for row in await conn.execute(_REMOVE, {"domain": domain, "after_s": after_s})]
