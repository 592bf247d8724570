"""The admin API's part about messages on their way: what `posta trace` does, over HTTP."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from services.core import journeys
from services.core.bus import Bus
from services.core.store.engine import Store
from services.sync.models import plain
from services.sync.reach import Within

_Id = Annotated[str, plain(64)]
_Meant = Annotated[str, plain(998), Field(min_length=1)]
_Limit = Annotated[int, Query(ge=1, le=journeys.MESSAGES)]


class Step(BaseModel):
    """One step of a message; times are microseconds, `at_us` since the epoch."""

    step: str
    service: str
    host: str
    at_us: int
    took_us: int
    sender: str
    recipient: str
    message_id: str
    detail: str
    findings: list[str]


class Journey(BaseModel):
    """A message with its steps, in the order of time."""

    spool_id: str
    message_id: str
    trace_id: str
    steps: list[Step]

    @classmethod
    def of(cls, found: journeys.Journey) -> Journey:
        """From what the stream tells."""
        steps = [Step(**step._asdict()) for step in found.steps]
        return cls(spool_id=found.spool_id, message_id=found.message_id, trace_id=found.trace_id, steps=steps)


def part(api: APIRouter, _store: Store, bus: Bus) -> None:
    """Add the traces."""
    reading = asyncio.Lock()

    @api.get("/traces")
    async def find_traces(reach: Within, what: _Meant, limit: _Limit = journeys.MESSAGES) -> list[Journey]:
        """The newest messages with that Message-ID, sender, recipient or spool id, oldest first."""
        async with reading:  # each reads the whole stream
            found = await journeys.journeys(bus, what, limit, reach.domains)
        return [Journey.of(each) for each in found]

    @api.get("/traces/{spool_id}")
    async def show_trace(spool_id: _Id, reach: Within) -> Journey:
        return Journey.of(await journeys.journey(bus, spool_id, reach.domains))
