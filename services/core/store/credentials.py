"""What proves who an account's user is: one password and any number of app passwords, as hashes only."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.core.ids import AccountId

PASSWORD, APP = "password", "app"


class NoSuchCredential(Exception):
    """The account has no credential of that number."""


class Secret(NamedTuple):
    """A password in the forms it is checked in; made by `auth.passwords.derive`."""

    argon2: str
    scram_salt: bytes
    scram_iterations: int
    scram_stored_key: bytes
    scram_server_key: bytes


class Credential(NamedTuple):
    """A credential as people administer it."""

    credential_id: int
    kind: str
    label: str
    scopes: tuple[str, ...]  # protocols it is good for; none named: all
    created_at: datetime


class Key(NamedTuple):
    """A credential as a login is checked against it."""

    credential_id: int
    kind: str
    scopes: frozenset[str]
    secret: Secret


class Owner(NamedTuple):
    """Who a login name belongs to."""

    account_id: AccountId
    address: str
    display_name: str
    status: str
    keys: tuple[Key, ...]


class Found(NamedTuple):
    """The answer to a login name: its owner if it has one, and a secret of this installation (see `_FIND`)."""

    owner: Owner | None
    pepper: bytes


_INSERT = text("""
INSERT INTO credentials
  (account_id, kind, label, scopes, argon2, scram_salt, scram_iterations, scram_stored_key, scram_server_key)
VALUES (:account_id, :kind, :label, :scopes, :argon2, :salt, :iterations, :stored_key, :server_key)
RETURNING credential_id
""")
_DROP_PASSWORD = text("DELETE FROM credentials WHERE account_id = :account_id AND kind = 'password'")
_LIST = text("""
SELECT credential_id, kind, label, scopes, created_at FROM credentials WHERE account_id = :account_id
ORDER BY credential_id
""")
_REMOVE = text("DELETE FROM credentials WHERE account_id = :account_id AND credential_id = :credential_id")
_SALT = text("""
SELECT scram_salt, scram_iterations FROM credentials WHERE account_id = :account_id
ORDER BY kind DESC, credential_id LIMIT 1
""")
# Only if nobody changed the password since it was verified.
_REHASH = text("""
UPDATE credentials SET argon2 = :new WHERE account_id = :account_id AND credential_id = :credential_id AND argon2 = :old
""")
# A login name is an address of the account, or an alias that leads to this account alone. The pepper comes with every
# answer: a SCRAM salt for a name that nobody has must be the same in every pod and at every time, as real ones are,
# and must be nothing an outsider can compute; the oldest credential's server key is both.
_FIND = text("""
WITH own AS (
  SELECT account_id FROM addresses WHERE address = :address AND kind = 'account'
  UNION ALL
  SELECT t.account_id FROM addresses a JOIN addresses t ON t.address = a.target AND t.kind = 'account'
  WHERE a.address = :address AND a.kind = 'alias'
    AND NOT EXISTS (SELECT FROM addresses o WHERE o.address = a.address AND o.target <> a.target)
), pepper AS (SELECT scram_server_key AS pepper FROM credentials ORDER BY account_id, credential_id LIMIT 1)
SELECT p.pepper, a.account_id, a.address, a.display_name, a.status, c.credential_id, c.kind, c.scopes, c.argon2,
  c.scram_salt, c.scram_iterations, c.scram_stored_key, c.scram_server_key
FROM pepper p LEFT JOIN own ON true LEFT JOIN accounts a USING (account_id) LEFT JOIN credentials c USING (account_id)
ORDER BY c.kind DESC, c.credential_id
""")


async def set_password(conn: AsyncConnection, account_id: AccountId, secret: Secret) -> int:
    """Replace the account's password; returns the new credential's number. App passwords stay."""
    await conn.execute(_DROP_PASSWORD, {"account_id": account_id})
    return await _insert(conn, account_id, PASSWORD, "", (), secret)


async def add_app(
    conn: AsyncConnection, account_id: AccountId, label: str, scopes: Sequence[str], secret: Secret
) -> int:
    """Add an app password good for the protocols in `scopes` (none: all); returns its number."""
    return await _insert(conn, account_id, APP, label, scopes, secret)


async def list_credentials(conn: AsyncConnection, account_id: AccountId) -> list[Credential]:
    """The account's credentials, oldest first."""
    rows = await conn.execute(_LIST, {"account_id": account_id})
    return [Credential(row[0], row[1], row[2], tuple(row[3]), row[4]) for row in rows]


async def remove(conn: AsyncConnection, account_id: AccountId, credential_id: int) -> None:
    """Remove one credential; raises `NoSuchCredential`."""
    done = await conn.execute(_REMOVE, {"account_id": account_id, "credential_id": credential_id})
    if done.rowcount == 0:
        raise NoSuchCredential(credential_id)


async def salt(conn: AsyncConnection, account_id: AccountId) -> tuple[bytes, int] | None:
    """The SCRAM salt and iteration count of the account, which all its credentials share; None before the first.

    A SCRAM server names the salt before it knows which of the passwords the client holds.
    """
    row = (await conn.execute(_SALT, {"account_id": account_id})).one_or_none()
    return None if row is None else (row[0], row[1])


async def rehash(conn: AsyncConnection, account_id: AccountId, credential_id: int, old: str, new: str) -> None:
    """Put `new` in the place of the argon2 hash `old`, unless that has changed meanwhile."""
    await conn.execute(_REHASH, {"account_id": account_id, "credential_id": credential_id, "old": old, "new": new})


async def find(conn: AsyncConnection, address: str) -> Found:
    """Whose login name the canonical `address` is, with everything a login is checked against: one statement."""
    rows = (await conn.execute(_FIND, {"address": address})).all()
    if not rows or rows[0].account_id is None:
        return Found(None, rows[0].pepper if rows else b"")
    keys = tuple(Key(row[5], row[6], frozenset(row[7]), Secret(*row[8:13])) for row in rows if row[5] is not None)
    first = rows[0]
    return Found(Owner(first[1], first[2], first[3], first[4], keys), first[0])


async def _insert(
    conn: AsyncConnection, account_id: AccountId, kind: str, label: str, scopes: Sequence[str], secret: Secret
) -> int:
    row = {
        "account_id": account_id, "kind": kind, "label": label, "scopes": list(scopes), "argon2": secret.argon2,
        "salt": secret.scram_salt, "iterations": secret.scram_iterations, "stored_key": secret.scram_stored_key,
        "server_key": secret.scram_server_key,
    }  # fmt: skip
    return int((await conn.execute(_INSERT, row)).scalar_one())
