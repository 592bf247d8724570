"""What operators do to the queue of mail to other domains, by `posta queue` or over HTTP: change, then tell."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeAlias

from services.contracts.v1.mail_pb2 import Envelope, RelayDestination, TraceEvent
from services.core.bus import Bus
from services.core.store import blobs, queued
from services.core.store.engine import Connection, Store
from services.core.store.queued import Queued, Selection, Touched
from services.core.store.replica import listed
from services.core.subjects import relay_destination

_HEADER_OCTETS = 16_384
_TRACES_AT_ONCE = 5000

_Change: TypeAlias = Callable[[Connection, Selection], Awaitable[list[Touched]]]


class Outbound:
    """The queue. Every method raises `StoreUnavailable`; those that change say how many recipients they changed."""

    def __init__(self, store: Store, bus: Bus | None, *, service: str) -> None:
        """`bus`: None where nothing runs that could be told. `service`: who says so in the trace."""
        self._store, self._bus, self._service = store, bus, service

    async def entries(self, selection: Selection, *, limit: int, after: tuple[str, int] = ("", -1)) -> list[Queued]:
        """A page of the queue, oldest messages first, from the recipient behind `after` on."""
        page = partial(queued.entries, selection=selection, limit=limit, after=after)
        return await listed(self._store, "outbound.list", page)

    async def count(self, selection: Selection) -> int:
        """How many recipients are meant."""
        async with self._store.query("outbound.count") as conn:
            return await queued.count(conn, selection)

    async def header(self, spool_id: str) -> str:
        """The header of a message in the spool, for people; empty when there is no such message."""
        async with self._store.query("outbound.header") as conn:
            found = await queued.origin(conn, spool_id)
        if found is None:
            return ""
        prefix, blob_id = found
        octets = prefix + (await blobs.read(self._store, [blob_id])).get(blob_id, b"")
        return octets[:_HEADER_OCTETS].partition(b"\r\n\r\n")[0].decode("utf-8", "replace").replace("\r\n", "\n")

    async def retry(self, selection: Selection) -> int:
        """Attempt them now, their destinations too if those were left alone."""
        return await self._change("retried", queued.retry, selection)

    async def hold(self, selection: Selection) -> int:
        """Let nobody attempt them until they are released."""
        return await self._change("held", queued.hold, selection)

    async def release(self, selection: Selection) -> int:
        """Attempt now what was held."""
        return await self._change("released", queued.release, selection)

    async def drop(self, selection: Selection) -> int:
        """Forget them; nobody is told."""
        return await self._change("dropped", queued.drop, selection)

    async def bounce(self, selection: Selection, reason: str) -> int:
        """Give them up and have their senders told; a relay does it within seconds."""

        async def doom(conn: Connection, selection: Selection) -> list[Touched]:
            return await queued.doom(conn, selection, reason)

        return await self._change("given up", doom, selection)

    async def _change(self, step: str, change: _Change, selection: Selection) -> int:
        async with self._store.begin("outbound.change") as conn:
            touched = await change(conn, selection)
        if self._bus is not None and touched:
            if step in ("retried", "released"):
                domains = {one.address.rpartition("@")[2] for one in touched} if selection.domain else {""}
                for domain in domains:
                    self._bus.publish_hint(relay_destination(), RelayDestination(destination=domain))
            await self._trace(self._bus, step, touched)
        return len(touched)

    async def _trace(self, bus: Bus, step: str, touched: Sequence[Touched]) -> None:
        for at, one in enumerate(touched, 1):
            bus.publish_trace(
                TraceEvent(
                    envelope=Envelope(spool_id=one.spool_id, traceparent=one.traceparent),
                    step=step,
                    service=self._service,
                    at_us=time.time_ns() // 1000,
                    sender=one.sender,
                    recipient=one.address,
                    detail="by an operator",
                )
            )
            if at % _TRACES_AT_ONCE == 0:
                await asyncio.sleep(0.1)  # the bus keeps so many that wait to be written, and no more
