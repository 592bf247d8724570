"""Giving an account its passwords. Afterwards, when committed: `directory.announce(bus, account_id=...)`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from services.core.auth import passwords
from services.core.ids import AccountId
from services.core.store import credentials
from services.core.store.engine import Connection


async def set_password(conn: Connection, account_id: AccountId, password: str) -> int:
    """Replace the account's password; returns the credential's number. Raises `BadPassword`."""
    salt = await credentials.salt(conn, account_id)
    secret = await asyncio.to_thread(passwords.derive, password, salt)
    return await credentials.set_password(conn, account_id, secret)


async def add_app_password(
    conn: Connection, account_id: AccountId, label: str, scopes: Sequence[str] = ()
) -> tuple[int, str]:
    """Make an app password good for the protocols in `scopes` (none: all); its number, and the only sight of it."""
    password = passwords.new_app_password()
    salt = await credentials.salt(conn, account_id)
    secret = await asyncio.to_thread(passwords.derive, password, salt)
    return await credentials.add_app(conn, account_id, label, scopes, secret), password
