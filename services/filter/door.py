"""Requests in, verdicts out: the one place where a scan begins and ends."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from services.contracts.v1 import mail_pb2 as pb
from services.core.bus import Bus, Subscription, scan
from services.core.ids import BlobId
from services.core.spans import OFF, Facts, Spans
from services.core.store.engine import StoreUnavailable
from services.core.telemetry import Logger, Metrics, tracing
from services.filter.examined import INLINE_OCTETS, Examined
from services.filter.heavy import aside
from services.filter.pipeline import Pipeline
from services.filter.reading import Reading
from services.filter.verdict import Action, Policy, decide

_DEFAULT_DEADLINE_S = 30.0
# The answer, and the way of the question, are part of the asker's time.
_SHARE = 0.9
_WAITING_PER_SLOT = 8
_LARGE_AT_ONCE = 4


def _later(text: str, enhanced: str = "4.7.1") -> pb.Verdict:
    return pb.Verdict(action=Action.TEMPFAIL, code=451, enhanced=enhanced, text=text)


def _store_gone() -> pb.Verdict:
    return _later("The mail store cannot be reached, try again later", "4.3.0")


@dataclass(slots=True)
class _Scan:
    """One request on its way through."""

    request: pb.ScanRequest
    started: float
    began_ns: int
    message_id: str = ""


class Door:
    """Answers scan requests. At most `concurrency` at a time; more wait, within their deadline, and not too many."""

    def __init__(
        self,
        reading: Reading,
        pipeline: Pipeline,
        policy: Policy,
        bus: Bus,
        log: Logger,
        metrics: Metrics,
        *,
        concurrency: int,
        host: str,
        spans: Spans = OFF,
    ) -> None:
        self._reading, self._pipeline, self._policy = reading, pipeline, policy
        self._bus, self._log, self._host, self._spans = bus, log, host, spans
        self._slots = asyncio.Semaphore(concurrency)
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)
        self._in_hand, self._most = 0, concurrency * (1 + _WAITING_PER_SLOT)
        scans = metrics.counter("scans", "Messages examined, by what became of them.", ["action"])
        self._scans = {value: scans.labels(name.lower()) for name, value in Action.items()}
        metrics.gauge("scans_in_hand", "Messages being examined or waiting for it.").set_function(lambda: self._in_hand)
        self._seconds = metrics.histogram("scan_seconds", "From the request to the verdict.")

    async def open(self) -> Subscription:
        """Answer scan requests from now on, sharing them with the other filters."""
        # The bus must not queue in front of us: what waits there has a deadline that nobody looks at.
        return await self._bus.respond(scan(), "filter", pb.ScanRequest, self.scan, self._most + 1)

    async def scan(self, request: pb.ScanRequest) -> pb.Verdict:
        """The verdict on one message, before the asker's deadline. Raises nothing but CancelledError."""
        with tracing(request.envelope.traceparent):
            return await self._scan(request)

    async def _scan(self, request: pb.ScanRequest) -> pb.Verdict:
        one = _Scan(request, time.perf_counter(), self._spans.now())
        limit = request.deadline_ms / 1000 if request.deadline_ms > 0 else _DEFAULT_DEADLINE_S
        deadline = asyncio.get_running_loop().time() + limit * _SHARE
        if self._in_hand >= self._most:
            verdict = _later("The filter is busy, try again later")
        else:
            self._in_hand += 1
            try:
                verdict = await self._bounded(one, deadline)
            except Exception:
                self._log.exception("scan failed", spool_id=request.envelope.spool_id)
                verdict = _later("The message could not be examined now, try again later")
            finally:
                self._in_hand -= 1
        self._tell(one, verdict)
        return verdict

    async def _bounded(self, one: _Scan, deadline: float) -> pb.Verdict:
        waiting = "The filter is busy, try again later"
        try:
            async with asyncio.timeout_at(deadline), self._slots:
                waiting = "The mail store cannot be reached, try again later"
                octets = await self._reading.read(BlobId(one.request.blob_id), one.request.size)
                if octets is None:
                    return _later("The message could not be read, try again later", "4.3.0")
                waiting = "The message could not be examined in time, try again later"
                if len(octets) > INLINE_OCTETS:
                    # Only so many large messages are in memory, decoded, at a time.
                    async with self._large:
                        return await self._examine(one, await aside(lambda: Examined(one.request, octets)), deadline)
                return await self._examine(one, Examined(one.request, octets), deadline)
        except TimeoutError:
            return _later(waiting)
        except StoreUnavailable as error:
            self._log.error("store unavailable", spool_id=one.request.envelope.spool_id, reason=str(error))
            return _store_gone()

    async def _examine(self, one: _Scan, examined: Examined, deadline: float) -> pb.Verdict:
        one.message_id = examined.header(b"message-id")[:998]
        # A little earlier than the scan itself, so that it is told which engine was late.
        now = asyncio.get_running_loop().time()
        return decide(await self._pipeline.run(examined, now + (deadline - now) * _SHARE), self._policy)

    def _tell(self, one: _Scan, verdict: pb.Verdict) -> None:
        took_s = time.perf_counter() - one.started
        self._scans[verdict.action].inc()
        envelope, name = one.request.envelope, Action.Name(verdict.action).lower()
        self._seconds.observe(took_s, self._spans.exemplar(envelope.traceparent))
        facts: Facts = {"posta.spool_id": envelope.spool_id, "posta.action": name, "posta.score": verdict.score}
        self._spans.step(envelope.traceparent, "filter scan", one.began_ns, facts)
        if verdict.action != Action.ACCEPT:
            self._log.info(
                "scanned",
                spool_id=one.request.envelope.spool_id,
                action=name,
                reply=f"{verdict.code} {verdict.enhanced} {verdict.text}" if verdict.code else "",
                symbols=[finding.symbol for finding in verdict.findings],
                score=verdict.score,
            )
        self._bus.publish_trace(
            pb.TraceEvent(
                envelope=one.request.envelope,
                step="scanned",
                service="filter",
                host=self._host,
                at_us=int(datetime.now(UTC).timestamp() * 1_000_000),
                took_us=int(took_s * 1_000_000),
                sender=one.request.sender,
                recipient=", ".join(each.address for each in one.request.recipients[:10]),
                message_id=one.message_id.strip("<>"),
                detail=f"{name}: {verdict.text}" if verdict.text else name,
                findings=verdict.findings,
            )
        )
