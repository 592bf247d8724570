"""What people do about held mail - release, delete, train - from a shell, over HTTP or by a digest's link."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Protocol

from services.contracts.v1.mail_pb2 import Envelope, TraceEvent
from services.core.bus import Bus
from services.core.ids import SpoolId, new_spool_id
from services.core.learning import learn
from services.core.spool import TICKET_LOST_S, Spool
from services.core.store import quarantine
from services.core.store.engine import Store
from services.core.store.quarantine import Released, Shown

VIRUS = "virus"


class Review:
    """One per process. Every method raises `StoreUnavailable` and, for an unknown id, `NoSuchMessage`."""

    def __init__(self, store: Store, bus: Bus, spool: Spool, *, service: str, host: str) -> None:
        self._store, self._bus, self._spool = store, bus, spool
        self._service, self._host = service, host

    async def release(self, spool_id: str, by: str, ns: Sequence[int] | None = None) -> Released | None:
        """Let the message go on to those recipients (None: all) that it is held for, and learn that it is no spam.

        Exactly once for each: None where it was held for none of them. `by`: who says so, for the trace.
        """
        shown = await quarantine.get(self._store, spool_id)
        released = await quarantine.release(
            self._store, spool_id, new_spool_id(), mark(spool_id, datetime.now(UTC)), TICKET_LOST_S, ns
        )
        if released is None:
            return None
        self._spool.publish(released.entry)
        if shown.kind != VIRUS:
            learn(self._bus, shown.spool_id, shown.blob_id, spam=False)
        who = ", ".join(recipient.address for recipient in released.entry.recipients[:10])
        # Told of both ids: whoever follows the one finds the other.
        self._trace(shown, "released", who, f"by {by}, as {released.entry.spool_id}")
        self._trace(shown._replace(spool_id=released.entry.spool_id), "released", who, f"by {by}, held as {spool_id}")
        return released

    async def delete(self, spool_id: str, by: str, ns: Sequence[int] | None = None) -> list[str]:
        """Give the message up for those recipients (None: all) that it is held for; their addresses."""
        shown = await quarantine.get(self._store, spool_id)
        gone = await quarantine.delete(self._store, spool_id, ns)
        if gone:
            self._trace(shown, "deleted", ", ".join(gone[:10]), f"by {by}")
        return gone

    async def train(self, spool_id: str, by: str, ns: Sequence[int] | None = None) -> list[str]:
        """Learn that the message is spam, and give it up as `delete` does."""
        shown = await quarantine.get(self._store, spool_id)
        learn(self._bus, shown.spool_id, shown.blob_id, spam=True)
        return await self.delete(spool_id, by, ns)

    def _trace(self, shown: Shown, step: str, recipient: str, detail: str) -> None:
        self._bus.publish_trace(event(shown, step, recipient, detail, service=self._service, host=self._host))


class Message(Protocol):
    """What a trace tells of a held message."""

    @property
    def spool_id(self) -> SpoolId: ...
    @property
    def sender(self) -> str: ...
    @property
    def message_id(self) -> str: ...
    @property
    def traceparent(self) -> str: ...


def event(message: Message, step: str, recipient: str, detail: str, *, service: str, host: str) -> TraceEvent:
    """One step of a held message, now."""
    return TraceEvent(
        envelope=Envelope(spool_id=message.spool_id, traceparent=message.traceparent),
        step=step,
        service=service,
        host=host,
        at_us=time.time_ns() // 1000,
        sender=message.sender,
        recipient=recipient,
        message_id=message.message_id,
        detail=detail,
    )


def mark(spool_id: str, now: datetime) -> bytes:
    """What stands in front of a message that was released: where it has been, and until when."""
    return f"X-Posta-Released: {spool_id}; {format_datetime(now)}\r\n".encode()
