"""Spans to an OpenTelemetry collector, over HTTP. Imported where an endpoint is set, and nowhere else.

The ids are Posta's own, those in logs and in `posta trace`. Spans are sent in batches by a thread; a collector that is
away costs spans and a line in the log, never mail.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags

from services.core.spans import Span
from services.core.telemetry import Logger

EVERY_MS, SEND_S = 1000, 3.0
_SCOPE = InstrumentationScope("posta")


class _Sender(SpanExporter):
    """Sends batches, and says once that the collector is away and once that it is back; the library would for each."""

    def __init__(self, endpoint: str, log: Logger) -> None:
        logging.getLogger("opentelemetry.exporter.otlp").setLevel(logging.CRITICAL)
        self._way, self._log, self._endpoint = OTLPSpanExporter(endpoint=endpoint, timeout=SEND_S), log, endpoint
        self._last = SpanExportResult.SUCCESS

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._way.export(spans)
        if result is not self._last:
            self._last = result
            if result is SpanExportResult.SUCCESS:
                self._log.info("traces are exported again", endpoint=self._endpoint)
            else:
                self._log.warning("traces cannot be exported, spans are lost", endpoint=self._endpoint)
        return result

    def shutdown(self) -> None:
        self._way.shutdown()  # type: ignore[no-untyped-call]


class Exporter:
    """One per process."""

    def __init__(self, endpoint: str, service: str, host: str, log: Logger) -> None:
        """`endpoint`: base address of the collector, to which `/v1/traces` is added. Headers and the like come from
        OpenTelemetry's own environment variables, such as OTEL_EXPORTER_OTLP_HEADERS.
        """
        self._resource = Resource.create(
            {"service.name": f"posta-{service}", "service.namespace": "posta", "host.name": host}
        )
        sender = _Sender(f"{endpoint.rstrip('/')}/v1/traces", log)
        self._batches = BatchSpanProcessor(sender, schedule_delay_millis=EVERY_MS)

    def keep(self, span: Span) -> None:
        """Queue the span; what does not fit into the queue is dropped."""
        parent = _context(span.trace.trace_id, span.parent, remote=True) if span.parent else None
        self._batches.on_end(
            ReadableSpan(
                name=span.name,
                context=_context(span.trace.trace_id, span.trace.span_id, remote=False),
                parent=parent,
                resource=self._resource,
                attributes=span.facts,
                kind=SpanKind.CONSUMER if parent is not None else SpanKind.SERVER,
                start_time=span.began_ns,
                end_time=span.ended_ns,
                instrumentation_scope=_SCOPE,
            )
        )

    async def close(self) -> None:
        """Send what is queued."""
        await asyncio.to_thread(self._batches.shutdown)


def _context(trace_id: str, span_id: str, *, remote: bool) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), remote, TraceFlags(TraceFlags.SAMPLED))
