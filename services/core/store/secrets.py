"""Secrets that the house makes for itself, one for all processes, where the operator names none."""

from __future__ import annotations

import secrets

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

SRS = "srs"

_GET = text("SELECT value FROM secrets WHERE name = :name")
_MAKE = text("INSERT INTO secrets (name, value) VALUES (:name, :value) ON CONFLICT DO NOTHING")


async def get(conn: AsyncConnection, name: str) -> str | None:
    """The secret of that name, if it was ever made."""
    value: str | None = (await conn.execute(_GET, {"name": name})).scalar_one_or_none()
    return value


async def get_or_make(conn: AsyncConnection, name: str) -> str:
    """The secret of that name; whoever asks first makes it."""
    kept = await get(conn, name)
    if kept is not None:
        return kept
    await conn.execute(_MAKE, {"name": name, "value": secrets.token_urlsafe(32)})
    made = await get(conn, name)
    assert made is not None
    return made
