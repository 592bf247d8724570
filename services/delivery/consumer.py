"""Tickets in, mailboxes changed, readers told, tickets acknowledged."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby

from services.contracts.v1.mail_pb2 import Changed, Envelope, Ticket, TraceEvent
from services.core.bus import Bus, Work, changed
from services.core.dsn import Report, wants_notice
from services.core.ids import AccountId, BlobId, SpoolId
from services.core.notices import Notices
from services.core.spans import OFF, Facts, Spans
from services.core.spool import TICKET_LOST_S
from services.core.store import blobs, messages, spool
from services.core.store.content import prepare
from services.core.store.engine import Store, StoreUnavailable
from services.core.store.messages import Content, Placed, Placement
from services.core.store.numbers import NoSuchAccount
from services.core.store.spool import Due
from services.core.telemetry import Logger, Metrics, tracing
from services.delivery.plan import Place, Plan, Refuse, plan, retry_wait_s

_OCTETS_AT_ONCE = 32 << 20  # of message bodies in memory, whatever the batch
_NAK_S = 5.0
_FINISH_S = 0.1


class Finisher:
    """Takes served recipients out of the spool, many at a time: nobody waits for it.

    What a crash leaves behind is found by the sweeper, and placed by nobody a second time.
    """

    def __init__(self, store: Store, log: Logger) -> None:
        self._store, self._log = store, log
        self._done: list[tuple[SpoolId, int]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: set[asyncio.Task[None]] = set()

    def add(self, done: Iterable[tuple[SpoolId, int]]) -> None:
        """Forget these recipients soon."""
        self._done.extend(done)
        if self._done and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FINISH_S, self._begin)

    def _begin(self) -> None:
        self._timer = None
        task = asyncio.create_task(self.flush())
        self._flushing.add(task)
        task.add_done_callback(self._flushing.discard)

    async def flush(self) -> None:
        """Forget what has been added, now."""
        done, self._done = self._done, []
        if not done:
            return
        try:
            await spool.finish(self._store, done)
        except StoreUnavailable as error:
            self._log.warning("spool not tidied", reason=str(error), recipients=len(done))


class Consumer:
    """Serves batches of tickets; any number may run beside each other, here and in other processes."""

    def __init__(
        self,
        store: Store,
        bus: Bus,
        notices: Notices,
        log: Logger,
        metrics: Metrics,
        *,
        host: str,
        spans: Spans = OFF,
    ) -> None:
        self._store, self._bus, self._notices, self._log, self._host = store, bus, notices, log, host
        self._spans = spans
        self._finisher = Finisher(store, log)
        self._delivered = metrics.counter("recipients_delivered", "Recipients whose message was put into a mailbox.")
        self._refused = metrics.counter("recipients_refused", "Recipients whose message could not be delivered.")
        self._failed = metrics.counter("recipients_failed", "Attempts that ended in an unexpected error.")
        self._seconds = metrics.histogram("recipient_delivery_seconds", "From the 250 to the mailbox.")

    async def close(self) -> None:
        """Leave nothing for the sweeper that is known to be done."""
        await self._finisher.flush()

    async def serve(self, works: list[Work[Ticket]]) -> None:
        """Deliver what the tickets name and acknowledge them; those that must wait for the store are handed back."""
        try:
            due = await spool.due_local(self._store, [SpoolId(w.message.envelope.spool_id) for w in works])
            for part in _portions(due):
                await self._deliver(part)
        except StoreUnavailable as error:
            self._log.warning("delivery put off", reason=str(error), tickets=len(works))
            for work in works:
                work.nak(_NAK_S)
            return
        for work in works:
            work.ack()

    async def _deliver(self, due: Sequence[Due]) -> None:
        began_ns = self._spans.now()
        octets = await blobs.read(self._store, list({d.blob_id for d in due}))
        pending: dict[AccountId, int] = defaultdict(int)
        plans: list[Plan] = []
        for d in due:
            plans.append(decided := plan(d, pending[d.account_id]))
            if isinstance(decided, Place) and not d.delivered:
                pending[d.account_id] += d.size
        contents = {d.spool_id: await prepare(d.blob_id, _prefix(d), octets[d.blob_id]) for d in _first_of_each(due)}
        settled = [(p.due, p.report) for p in plans if isinstance(p, Refuse)]
        self._refused.inc(len(settled))
        settled += await self._place([p for p in plans if isinstance(p, Place)], contents, began_ns)
        self._finisher.add((d.spool_id, d.n) for d, report in settled if not _wants_notice(d, report))
        for spool_id, told in _by_message((d, r) for d, r in settled if _wants_notice(d, r)):
            await self._tell_sender(spool_id, told, octets)

    async def _place(
        self, places: Sequence[Place], contents: dict[SpoolId, Content], began_ns: int
    ) -> list[tuple[Due, Report]]:
        """Place all in one transaction; where one spoils it, each by itself. Who is settled, and how."""
        if not places:
            return []
        placements = [
            Placement(
                content=contents[p.due.spool_id],
                folder=p.role,
                internal_date=p.due.received_at,
                account_id=p.due.account_id,
                spool_id=p.due.spool_id,
                n=p.due.n,
            )
            for p in places
        ]
        try:
            placed = await messages.deliver(self._store, placements)
        except StoreUnavailable:
            raise
        except Exception as error:
            if len(places) > 1:
                return [one for p in places for one in await self._place([p], contents, began_ns)]
            due = places[0].due
            if isinstance(error, NoSuchAccount):
                return [(due, Report(due.address, "failed", "5.1.1", "550 5.1.1 The mailbox is gone", due.orcpt))]
            await self._postpone(due, error)
            return []
        self._announce(places, placed, began_ns)
        return [
            (p.due, Report(p.due.address, "delivered", "2.0.0", "250 2.0.0 Delivered", p.due.orcpt)) for p in places
        ]

    def _announce(self, places: Sequence[Place], placed: Sequence[Placed], began_ns: int) -> None:
        """Commit first, tell second: readers are woken, then the trace and the figures."""
        steps = [self._step(places[p.ord - 1], began_ns) for p in placed]
        # In order, so the last cn stays.
        newest = {(places[p.ord - 1].due.account_id, p.fid): (p, step) for p, step in zip(placed, steps, strict=True)}
        for (account, fid), (one, step) in newest.items():
            envelope = Envelope(spool_id=places[one.ord - 1].due.spool_id, traceparent=step)
            self._bus.publish_hint(changed(account), Changed(envelope=envelope, account_id=account, fid=fid, cn=one.cn))
        now = datetime.now(UTC)
        for one in placed:
            due = places[one.ord - 1].due
            took = now - due.received_at
            self._delivered.inc()
            self._seconds.observe(max(0.0, took.total_seconds()), self._spans.exemplar(due.traceparent))
            self._trace(due, "delivered", f"{places[one.ord - 1].role} uid {one.uid}", now)

    def _step(self, place: Place, began_ns: int) -> str:
        due = place.due
        facts: Facts = {"posta.spool_id": due.spool_id, "posta.account": due.account_id, "posta.folder": place.role}
        return self._spans.step(due.traceparent, "delivery", began_ns, facts)

    async def _postpone(self, due: Due, error: Exception) -> None:
        wait_s = retry_wait_s(due.attempts)
        self._failed.inc()
        with tracing(due.traceparent):
            self._log.error(
                "delivery failed", exc_info=error, spool_id=due.spool_id, account=due.account_id, again_in_s=wait_s
            )
        async with self._store.begin("delivery.postpone") as conn:
            await spool.postpone(conn, due.spool_id, [due.n], wait_s, f"{type(error).__name__}: {error}"[:500])

    async def _tell_sender(
        self, spool_id: SpoolId, told: Sequence[tuple[Due, Report]], octets: dict[BlobId, bytes]
    ) -> None:
        due = told[0][0]
        notice = await self._notices.about(due, [r for _, r in told], due.prefix + octets[due.blob_id])
        failed = told[0][1].action == "failed"
        if notice is None:
            await spool.finish(self._store, [(d.spool_id, d.n) for d, _ in told])
        elif await spool.finish_with_notice(self._store, [d for d, _ in told], notice, TICKET_LOST_S, failed=failed):
            self._notices.committed(notice)
            for d, report in told if failed else ():
                self._trace(d, "bounced", report.diagnostic, datetime.now(UTC))

    def _trace(self, due: Due, step: str, detail: str, at: datetime) -> None:
        self._bus.publish_trace(
            TraceEvent(
                envelope=Envelope(spool_id=due.spool_id, traceparent=due.traceparent),
                step=step,
                service="delivery",
                host=self._host,
                at_us=int(at.timestamp() * 1_000_000),
                sender=due.sender,
                recipient=due.address,
                detail=detail,
            )
        )


def _wants_notice(due: Due, report: Report) -> bool:
    return wants_notice(due.sender, due.notify, report.action)


def _prefix(due: Due) -> bytes:
    # RFC 5321 4.4: final delivery records the reverse-path, in front of everything
    return b"Return-Path: <%b>\r\n%b" % (due.sender.encode(), due.prefix)


def _first_of_each(due: Sequence[Due]) -> Iterator[Due]:
    return (next(group) for _, group in groupby(due, key=lambda d: d.spool_id))


def _by_message(told: Iterable[tuple[Due, Report]]) -> Iterator[tuple[SpoolId, list[tuple[Due, Report]]]]:
    """One notice speaks of all recipients of a message that share its kind."""

    def key(one: tuple[Due, Report]) -> tuple[SpoolId, str]:
        return one[0].spool_id, one[1].action

    for (spool_id, _), group in groupby(sorted(told, key=key), key=key):
        yield spool_id, list(group)


def _portions(due: Sequence[Due]) -> Iterator[list[Due]]:
    """Cut where the bodies would take more memory than one portion may."""
    portion: list[Due] = []
    octets = 0
    for d in due:
        if portion and octets + d.size > _OCTETS_AT_ONCE:
            yield portion
            portion, octets = [], 0
        portion.append(d)
        octets += d.size
    if portion:
        yield portion
