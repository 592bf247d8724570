"""What the directory asks of the addresses: where they lead, whether there is room, who may write under them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.core.ids import AccountId
from services.core.store.accounts import NoSuchAccount


class Place(NamedTuple):
    """What the directory needs of one address: an account's, or one target of an alias."""

    domain: str
    address: str | None  # None: the domain is ours and nothing that was asked for exists in it
    target: str | None
    account_id: AccountId | None
    primary: str | None
    status: str | None
    quota_octets: int | None


_PLACES = text("""
SELECT d.domain, r.address, r.target, r.account_id, a.address, a.status, a.quota_octets
FROM domains d
LEFT JOIN addresses r ON r.domain = d.domain AND r.address = ANY(:addresses)
LEFT JOIN accounts a ON a.account_id = r.account_id
WHERE d.domain = ANY(:domains)
""")
_ROOM = text("""
SELECT a.quota_octets, s.used_octets FROM accounts a JOIN account_seq s USING (account_id)
WHERE account_id = :account_id
""")
_OWNED = text("""
WITH RECURSIVE own (address) AS (
  SELECT address FROM addresses WHERE account_id = :account_id AND kind = 'account'
  UNION
  SELECT a.address FROM own JOIN addresses a ON a.target = own.address AND a.kind = 'alias'
  WHERE NOT EXISTS (SELECT FROM addresses o WHERE o.address = a.address AND o.target <> a.target)
) SELECT address FROM own
""")


async def places(conn: AsyncConnection, keys: Sequence[str], domains: Sequence[str]) -> list[Place]:
    """Every row that one of the canonical addresses has; for a domain of ours without any, one row of None."""
    return [Place(*row) for row in await conn.execute(_PLACES, {"addresses": keys, "domains": domains})]


async def usage(conn: AsyncConnection, account_id: AccountId) -> tuple[int | None, int]:
    """Quota (None: no limit) and octets in use; raises `NoSuchAccount`."""
    row = (await conn.execute(_ROOM, {"account_id": account_id})).one_or_none()
    if row is None:
        raise NoSuchAccount(account_id)
    return row[0], row[1]


async def owned(conn: AsyncConnection, account_id: AccountId) -> frozenset[str]:
    """The account's addresses and the aliases that lead to nobody else, "@domain" for a catch-all."""
    return frozenset(row[0] for row in await conn.execute(_OWNED, {"account_id": account_id}))
