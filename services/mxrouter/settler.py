"""How an attempt ended, written down: the queue, the notices, then the trace and the figures.

Between a remote's 250 and the commit that takes its recipient out of the queue lies one statement. A pod that is killed
there leaves a message that is sent again: the window that SMTP itself has (RFC 1047). While the store is away the pod
keeps what it knows and writes it down when the store is back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from services.contracts.v1.mail_pb2 import Envelope, TraceEvent
from services.core.bus import Bus
from services.core.group import Group
from services.core.ids import SpoolId
from services.core.notices import Notices
from services.core.spool import TICKET_LOST_S
from services.core.store import blobs, spool
from services.core.store.engine import Store, StoreUnavailable
from services.core.store.spool import Entry
from services.core.telemetry import Logger, Metrics
from services.mxrouter import queue
from services.mxrouter.carriage import Outcome
from services.mxrouter.plan import Later, Plan, Served, plan, said
from services.mxrouter.queue import Claim, Postponed
from services.mxrouter.schedule import Patience

_AGAIN_S = 2.0


class Settler:
    """One per pod."""

    def __init__(
        self,
        store: Store,
        bus: Bus,
        notices: Notices,
        log: Logger,
        metrics: Metrics,
        *,
        pod: str,
        host: str,
        patience: Patience,
        chance: Callable[[], float],
    ) -> None:
        """`host`: our name in the trace; `chance`: numbers from 0 to 1 that spread retries."""
        self._store, self._bus, self._notices, self._log = store, bus, notices, log
        self._pod, self._host, self._patience, self._chance = pod, host, patience, chance
        self._finished: Group[tuple[SpoolId, int], None] = Group(self._finish, 256, 256)
        self._attempts = metrics.counter("relay_attempts", "Recipients attempted, by what came of it.", ["result"])
        self._seconds = metrics.histogram(
            "relay_age_seconds", "From the 250 to the remote's.", buckets=(0.1, 1, 10, 60, 600, 3600, 14_400, 86_400)
        )

    async def settle(self, claim: Claim, outcomes: Sequence[Outcome], octets: bytes | None = None) -> None:
        """Write down what became of each recipient; returns when it is committed, however long the store is away.

        `octets`: the message, where it is at hand.
        """
        made = plan(claim, outcomes, claim.claimed_at, self._patience, self._chance())
        while True:
            try:
                kept = await self._write(claim, made, octets)
                break
            except StoreUnavailable as error:
                self._log.warning("outcome not written yet", spool_id=claim.spool_id, reason=str(error))
                await asyncio.sleep(_AGAIN_S)
        if not kept:
            self._log.warning("another relay was faster: the lease had run out", spool_id=claim.spool_id)
        self._report(claim, made, kept)

    async def _write(self, claim: Claim, made: Plan, octets: bytes | None) -> bool:
        if not (made.failed or made.later or made.told):
            await asyncio.gather(*(self._finished.put((claim.spool_id, s.recipient.n), 1) for s in made.sent))
            return True
        notices: list[Entry] = []
        if made.told:
            message = octets or claim.prefix + (await blobs.read(self._store, [claim.blob_id]))[claim.blob_id]
            for reports in made.told:
                if (notice := await self._notices.about(claim, reports, message)) is not None:
                    notices.append(notice)
        kept = await queue.settle(
            self._store,
            self._pod,
            claim.spool_id,
            sent=[s.recipient for s in made.sent],
            failed=[s.recipient for s in made.failed],
            later=[_postponed(each) for each in made.later],
            notices=notices,
            due_in_s=TICKET_LOST_S,
        )
        for notice in notices if kept else ():
            self._notices.committed(notice)
        return kept

    async def _finish(self, done: list[tuple[SpoolId, int]]) -> Sequence[None]:
        await spool.finish(self._store, sorted(done), lazily=False)
        return [None] * len(done)

    def _report(self, claim: Claim, made: Plan, kept: bool) -> None:
        age_s = (datetime.now(UTC) - claim.received_at).total_seconds()
        for each in made.sent:
            self._seconds.observe(max(0.0, age_s))
            self._count("relayed", claim, each)
        if not kept:
            return
        told = {report.recipient for reports in made.told for report in reports if report.action == "failed"}
        for each in made.failed:
            self._count("bounced" if each.recipient.address in told else "failed", claim, each)
            if not claim.sender:
                # RFC 5321 6.1: a notice about a notice is never sent, so this line is all that is left of it.
                self._log.warning("double bounce", spool_id=claim.spool_id, reply=said(each.outcome))
        for waits in made.later:
            self._count("deferred", claim, waits, f"again in {waits.again.wait_s:.0f} s")

    def _count(self, step: str, claim: Claim, one: Served | Later, more: str = "") -> None:
        self._attempts.labels(step).inc()
        where = f"by {one.outcome.host}" if one.outcome.host else ""
        self._bus.publish_trace(
            TraceEvent(
                envelope=Envelope(spool_id=claim.spool_id, traceparent=claim.traceparent),
                step=step,
                service="mxrouter",
                host=self._host,
                at_us=time.time_ns() // 1000,
                sender=claim.sender,
                recipient=one.recipient.address,
                forwarded_by=one.recipient.forwarded_by or "",
                detail=", ".join(filter(None, (said(one.outcome), where, more))),
            )
        )


def _postponed(one: Later) -> Postponed:
    reply = said(one.outcome)[:1000]
    return Postponed(
        one.recipient.n, one.recipient.attempts, one.again.wait_s, one.again.notice_at, reply, one.outcome.host
    )
