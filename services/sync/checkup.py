"""The admin API's part about the platform's health: what `posta doctor` does, over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from services.core.bus import Bus
from services.core.dns import Dns
from services.core.doctor import House, examine
from services.core.settings import Settings
from services.core.store.engine import Store


class Finding(BaseModel):
    """One thing that the doctor looked at; `do` is what would mend it."""

    check: str
    state: Literal["ok", "note", "wrong"]
    says: str
    do: str


def doctor(resolver: Callable[[], Dns], settings: Settings) -> Callable[[APIRouter, Store, Bus], None]:
    """A part for `admin.router`. `resolver` makes one without memory: whoever asks may just have mended a zone."""

    def part(api: APIRouter, store: Store, bus: Bus) -> None:
        @api.get("/doctor")
        async def find() -> list[Finding]:
            """What is well, what is wrong and what to do, as far as this process's settings name it."""
            found = await examine(House(settings, store, bus, resolver()))
            return [Finding(**line._asdict()) for line in found]

    return part
