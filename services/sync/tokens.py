"""The admin API's part about its tokens: who else may use it, and for which domains."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import AwareDatetime, BaseModel, Field

from services.core.bus import Bus
from services.core.store import tokens
from services.core.store.engine import Store
from services.sync.models import Address, Given, plain

_Name = Annotated[str, plain(63)]


class NewToken(Given):
    """A token to be made, good for these domains alone."""

    name: _Name
    domains: Annotated[list[Address], Field(min_length=1, max_length=1000)]
    expires_at: AwareDatetime | None = Field(default=None, description="null: good until it is revoked")


class Token(BaseModel):
    """A token, which nobody can see again."""

    name: str
    domains: list[str]
    created_at: datetime
    used_at: datetime | None
    expires_at: datetime | None

    @classmethod
    def of(cls, row: tokens.Token) -> Token:
        """From the store's row."""
        return cls(**row._asdict())


class ShownToken(Token):
    """A token when it is made."""

    token: str


def part(api: APIRouter, store: Store, _bus: Bus) -> None:
    """Add the tokens. They are the platform's: no bearer of one of them makes another."""

    @api.get("/tokens")
    async def list_tokens() -> list[Token]:
        async with store.query("admin.look") as conn:
            return [Token.of(row) for row in await tokens.every(conn)]

    @api.post("/tokens", status_code=201)
    async def create_token(new: NewToken) -> ShownToken:
        """Makes one. The answer is the only time that it can be seen."""
        async with store.begin("admin.change") as conn:
            made, shown = await tokens.create(conn, new.name, new.domains, new.expires_at)
        return ShownToken(**Token.of(made).model_dump(), token=shown)

    @api.delete("/tokens/{name}", status_code=204)
    async def revoke_token(name: _Name) -> None:
        async with store.begin("admin.change") as conn:
            await tokens.revoke(conn, name)
