"""Logs, metrics and trace context: what an operator sees.

Logs are one JSON object a line on stdout. Metrics are named `posta_<service>_<noun>_<unit>[_total]`; their labels have
few values, so never an address. Trace context is W3C `traceparent`, carried in every protobuf Envelope.
"""

import json
import logging
import os
import sys
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, TextIO, cast

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.openmetrics.exposition import generate_latest as exemplified
from prometheus_client.process_collector import ProcessCollector
from structlog.typing import FilteringBoundLogger

Logger = FilteringBoundLogger

# A metric labelled by one of these has as many series as there are people or messages.
UNBOUNDED = frozenset(
    {"account", "account_id", "address", "ip", "message_id", "recipient", "sender", "spool_id", "user"}
)
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Trace(NamedTuple):
    """One span of a W3C trace: where a message is on its way (W3C Trace Context 3.2.2)."""

    trace_id: str
    span_id: str
    sampled: bool = True

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"

    def child(self) -> "Trace":
        """A new span of the same trace."""
        return Trace(self.trace_id, os.urandom(8).hex(), self.sampled)


def new_trace() -> Trace:
    """The first span of a new trace."""
    both = os.urandom(24).hex()
    return Trace(both[:32], both[32:])


def parse_trace(traceparent: str) -> Trace | None:
    """The span a `traceparent` names, or None where it is not one (W3C Trace Context 3.2.2.2 to 3.2.2.5)."""
    parts = traceparent.split("-")
    if len(parts) < 4 or [len(part) for part in parts[:4]] != [2, 32, 16, 2]:
        return None
    version, trace_id, span_id, flags = parts[:4]
    if not set("".join(parts[:4])) <= set("0123456789abcdef"):
        return None
    # Version ff is forbidden; version 00 has exactly four fields, later ones may have more.
    if version == "ff" or (version == "00" and len(parts) != 4) or not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return Trace(trace_id, span_id, bool(int(flags, 16) & 1))


_trace: ContextVar[Trace | None] = ContextVar("posta_trace", default=None)


def current_trace() -> Trace | None:
    """The span this task works under."""
    return _trace.get()


@contextmanager
def tracing(traceparent: str) -> Iterator[Trace]:
    """Work under a child of `traceparent` (of a new trace where it is empty or wrong); log lines carry its trace_id."""
    parent = parse_trace(traceparent)
    span = parent.child() if parent else new_trace()
    token = _trace.set(span)
    try:
        yield span
    finally:
        _trace.reset(token)


def silent() -> Logger:
    """A logger that says nothing, whatever this process's logs are set to."""
    quiet = structlog.make_filtering_bound_logger(logging.CRITICAL)
    return cast("Logger", structlog.wrap_logger(structlog.ReturnLogger(), wrapper_class=quiet))


def configure_logs(service: str, level: str = "info", stream: TextIO | None = None) -> Logger:
    """Send this process's logs, libraries' warnings too, to `stream` (stdout) as JSON and return the service's logger.

    Lines below `level` cost one comparison: they are dropped before anything is formatted.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    out = stream or sys.stdout
    render = structlog.processors.JSONRenderer(serializer=_dumps)
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                render,
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(number, logging.WARNING), force=True)
    return logger(service)


def logger(service: str) -> Logger:
    """A logger whose lines carry `service`; `.bind(spool_id=..., account=...)` makes one for a message or a session."""
    return cast(Logger, structlog.get_logger().bind(service=service))


def _add_trace(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if (span := _trace.get()) is not None and "trace_id" not in event:
        event["trace_id"] = span.trace_id
    return event


def _dumps(event: Any, **_options: Any) -> str:
    return json.dumps(event, default=str, ensure_ascii=False, separators=(",", ":"))


class Metrics:
    """One process's metrics, in a registry of its own; passed to whoever counts something."""

    def __init__(self, service: str) -> None:
        self._prefix = f"posta_{service}_"
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def counter(self, name: str, documentation: str, labels: Sequence[str] = ()) -> Counter:
        """A count that only grows: `posta_<service>_<name>_total`."""
        return Counter(self._prefix + name, documentation, _bounded(labels), registry=self._registry)

    def gauge(self, name: str, documentation: str, labels: Sequence[str] = ()) -> Gauge:
        """A figure that rises and falls: `posta_<service>_<name>`."""
        return Gauge(self._prefix + name, documentation, _bounded(labels), registry=self._registry)

    def histogram(
        self, name: str, documentation: str, labels: Sequence[str] = (), buckets: Sequence[float] = SECONDS
    ) -> Histogram:
        """How durations or sizes are spread: `posta_<service>_<name>`, where `name` ends in its unit."""
        return Histogram(
            self._prefix + name, documentation, _bounded(labels), registry=self._registry, buckets=tuple(buckets)
        )

    def exposition(self, *, openmetrics: bool = False) -> bytes:
        """Every metric in Prometheus text format, or in that of OpenMetrics, which shows exemplars."""
        if not openmetrics:
            return generate_latest(self._registry)
        page: bytes = exemplified(self._registry)  # type: ignore[no-untyped-call]
        return page


def _bounded(labels: Sequence[str]) -> Sequence[str]:
    if unbounded := UNBOUNDED.intersection(labels):
        raise ValueError(f"a metric may not be labelled by {', '.join(sorted(unbounded))}: it has no bound")
    return labels
