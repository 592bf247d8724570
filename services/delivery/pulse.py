"""What waits, as gauges. Every delivery pod tells the same figures, so a dashboard takes the largest, not the sum."""

from __future__ import annotations

import asyncio

from services.core.bus import Bus
from services.core.line import BusUnavailable
from services.core.store import pulse
from services.core.store.engine import Store, StoreUnavailable
from services.core.telemetry import Logger, Metrics

EVERY_S = 15.0
_KINDS = {False: "local", True: "remote"}
_CONSUMERS = {"delivery": "local", "relay": "remote"}  # the durable's name and its subject's last word


class Pulse:
    """Looks at the spool and the streams from time to time; one per process."""

    def __init__(self, store: Store, bus: Bus, log: Logger, metrics: Metrics) -> None:
        self._store, self._bus, self._log = store, bus, log
        kind, subject, stream = ["kind"], ["subject"], ["stream"]
        gauge = metrics.gauge
        self._recipients = gauge("spool_recipients", "Recipients whose message is accepted but not delivered.", kind)
        self._failing = gauge("spool_failing", "Of these, those tried four times or more.", kind)
        self._oldest = gauge("spool_oldest_seconds", "Age of the oldest message with such a recipient.", kind)
        self._overdue = gauge("spool_overdue_seconds", "How long the recipient that waits longest has been due.", kind)
        self._busiest = gauge("spool_one_sender", "Recipients elsewhere that wait for one account's mail, at most.")
        self._lag = gauge("store_replication_lag_seconds", "How far the slowest replica of Postgres is behind.")
        self._pending = gauge("work_pending", "Tickets that nobody has taken yet.", subject)
        self._in_hand = gauge("work_in_hand", "Tickets that are taken and not settled.", subject)
        self._again = gauge("work_redelivered", "Tickets in hand that were handed out before.", subject)
        self._octets = gauge("stream_octets", "What a stream of the bus holds.", stream)

    async def run(self) -> None:
        """Look until cancelled. What cannot be asked now keeps its last figure: /readyz says that it is away."""
        while True:
            try:
                await self.look()
            except (StoreUnavailable, BusUnavailable) as error:
                self._log.debug("no pulse", reason=str(error))
            await asyncio.sleep(EVERY_S)

    async def look(self) -> None:
        """Take every figure once. Raises `StoreUnavailable`, `BusUnavailable`."""
        async with self._store.read("delivery.pulse") as conn:
            rows = {row.remote: row for row in await pulse.waiting(conn)}
            busiest, lag = await pulse.busiest_sender(conn), await pulse.replication_lag_s(conn)
        for remote, kind in _KINDS.items():
            row = rows.get(remote) or pulse.Waiting(remote, 0, 0, 0.0, 0.0)
            self._recipients.labels(kind).set(row.recipients)
            self._failing.labels(kind).set(row.failing)
            self._oldest.labels(kind).set(row.oldest_s)
            self._overdue.labels(kind).set(row.overdue_s)
        self._busiest.set(busiest)
        self._lag.set(lag or 0.0)
        await self._look_at_the_bus()

    async def _look_at_the_bus(self) -> None:
        for name in ("WORK", "TRACE"):
            answer = await self._bus.api(f"STREAM.INFO.{name}", {})
            self._octets.labels(name.lower()).set(answer.get("state", {}).get("bytes", 0))
        for durable, subject in _CONSUMERS.items():
            answer = await self._bus.api(f"CONSUMER.INFO.WORK.{durable}", {})
            self._pending.labels(subject).set(answer.get("num_pending", 0))
            self._in_hand.labels(subject).set(answer.get("num_ack_pending", 0))
            self._again.labels(subject).set(answer.get("num_redelivered", 0))
