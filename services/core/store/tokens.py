"""Tokens of the admin API that are good for some domains alone: `admin_tokens`, a row for each.

A token reads `name.secret`. Of the secret only the SHA-256 is kept: it is 256 random bits, which no guesser can try.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.core.address import domain
from services.core.store.accounts import AlreadyExists, NoSuchDomain

PLATFORM = "platform"
"""What the log calls the token that is good for everything."""


class Token(NamedTuple):
    """A token as people administer it."""

    name: str
    domains: tuple[str, ...]  # without those that were given up since
    created_at: datetime
    used_at: datetime | None  # to the minute
    expires_at: datetime | None


class BadToken(ValueError):
    """No such token can be made; the text says why, in words fit for an operator."""


class NoSuchToken(Exception):
    """There is no token of that name."""


_SECRET_OCTETS = 32
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_COLUMNS = "name, domains, created_at, used_at, expires_at"
# In order, so that two who make tokens for the same domains do not deadlock; locked, so none is given up meanwhile.
_LOCK = text("SELECT domain FROM domains WHERE domain = ANY(:domains) ORDER BY domain FOR UPDATE")
_ADD = text(f"""
INSERT INTO admin_tokens (name, secret_hash, domains, expires_at) VALUES (:name, :secret_hash, :domains, :expires_at)
ON CONFLICT DO NOTHING RETURNING {_COLUMNS}
""")  # noqa: S608 - constant
_ALL = text(f"SELECT {_COLUMNS} FROM admin_tokens ORDER BY name")  # noqa: S608 - constant
_REVOKE = text("DELETE FROM admin_tokens WHERE name = :name")
_FIND = text(f"""
SELECT {_COLUMNS}, secret_hash FROM admin_tokens WHERE name = :name AND (expires_at IS NULL OR expires_at > now())
""")  # noqa: S608 - constant
_USED = text("""
UPDATE admin_tokens SET used_at = now()
WHERE name = :name AND (used_at IS NULL OR used_at < now() - interval '1 minute')
""")


async def create(
    conn: AsyncConnection, name: str, domains: Sequence[str], expires_at: datetime | None = None
) -> tuple[Token, str]:
    """Make a token; what its bearer shows is told here and never again.

    Raises `BadToken`, `BadAddress`, `NoSuchDomain`, and `AlreadyExists` for a name that is taken.
    """
    if _NAME.fullmatch(name) is None or name == PLATFORM:
        raise BadToken(f"{name!r} is no name for a token: at most 63 of a-z, 0-9 and -, and not {PLATFORM}")
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise BadToken(f"{expires_at:%Y-%m-%d %H:%M} is over already")
    wanted = sorted({domain(each) for each in domains})
    if not wanted:
        raise BadToken("a token is for one domain at least")
    ours = {row[0] for row in await conn.execute(_LOCK, {"domains": wanted})}
    if missing := [each for each in wanted if each not in ours]:
        raise NoSuchDomain(missing[0])
    secret = secrets.token_urlsafe(_SECRET_OCTETS)
    row = {"name": name, "secret_hash": _hash(secret), "domains": wanted, "expires_at": expires_at}
    made = (await conn.execute(_ADD, row)).one_or_none()
    if made is None:
        raise AlreadyExists(name)
    return _token(made), f"{name}.{secret}"


async def every(conn: AsyncConnection) -> list[Token]:
    """All of them, in order of name."""
    return [_token(row) for row in await conn.execute(_ALL)]


async def revoke(conn: AsyncConnection, name: str) -> None:
    """Let the token be good for nothing from now on. Raises `NoSuchToken`."""
    if (await conn.execute(_REVOKE, {"name": name})).rowcount == 0:
        raise NoSuchToken(name)


async def bearer(conn: AsyncConnection, shown: str) -> Token | None:
    """The token that somebody shows, None where it is none of ours or is over."""
    name, _, secret = shown.partition(".")
    if _NAME.fullmatch(name) is None:
        return None
    row = (await conn.execute(_FIND, {"name": name})).one_or_none()
    return _token(row) if row is not None and secrets.compare_digest(row.secret_hash, _hash(secret)) else None


async def used(conn: AsyncConnection, name: str) -> None:
    """Remember that it was used now, at most once a minute."""
    await conn.execute(_USED, {"name": name})


def _hash(secret: str) -> bytes:
    return sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _token(row: Any) -> Token:
    return Token(row[0], tuple(row[1]), row[2], row[3], row[4])
