"""Log lines an operator can search, metrics that stay bounded, trace context that other tools can read."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from services.core.telemetry import Metrics, configure_logs, current_trace, new_trace, parse_trace, tracing


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_line_carries_what_is_bound_and_the_trace_it_is_part_of(lines: io.StringIO) -> None:
    log = configure_logs("delivery", "info", lines).bind(spool_id="01abc", account=7)
    with tracing("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"):
        log.info("delivered", folder="INBOX")
    log.debug("not said")
    log.info("äöü", reason="two\nlines")
    first, second = map(json.loads, lines.getvalue().splitlines())
    assert first.pop("timestamp").endswith("Z")
    assert first == {
        "event": "delivered",
        "level": "info",
        "service": "delivery",
        "spool_id": "01abc",
        "account": 7,
        "folder": "INBOX",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
    }
    assert second["reason"] == "two\nlines"
    assert "trace_id" not in second


def test_exceptions_and_libraries_speak_json_too(lines: io.StringIO) -> None:
    log = configure_logs("imap", "info", lines)
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        log.exception("failed")
    logging.getLogger("sqlalchemy.pool").warning("pool %s", "empty")
    logging.getLogger("sqlalchemy.pool").info("not said")
    failed, pool = map(json.loads, lines.getvalue().splitlines())
    assert "RuntimeError: broken" in failed["exception"]
    assert (pool["event"], pool["logger"], pool["level"]) == ("pool empty", "sqlalchemy.pool", "warning")


def test_a_trace_goes_from_service_to_service() -> None:
    assert current_trace() is None
    with tracing("") as door:
        assert current_trace() == door
        with tracing(door.traceparent) as behind:
            assert behind.trace_id == door.trace_id
            assert behind.span_id != door.span_id
        assert current_trace() == door
    assert current_trace() is None


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "00",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0_",
    ],
)
def test_what_is_no_trace_begins_a_new_one(wrong: str) -> None:
    assert parse_trace(wrong) is None
    with tracing(wrong) as span:
        assert parse_trace(span.traceparent) == span


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    span = new_trace()
    assert parse_trace(f"01-{span.trace_id}-{span.span_id}-00-more") == span._replace(sampled=False)


def test_metrics_have_the_service_in_their_name_and_no_people_in_their_labels() -> None:
    metrics = Metrics("imap")
    metrics.counter("commands", "Commands run.", ["command"]).labels("FETCH").inc()
    metrics.gauge("connections", "Open connections.").set(3)
    metrics.histogram("command_seconds", "Time a command takes.").observe(0.002)
    text = metrics.exposition().decode()
    assert 'posta_imap_commands_total{command="FETCH"} 1.0' in text
    assert "posta_imap_connections 3.0" in text
    assert 'posta_imap_command_seconds_bucket{le="0.0025"} 1.0' in text
    assert "process_resident_memory_bytes" in text
    with pytest.raises(ValueError, match="account"):
        metrics.counter("logins", "Logins.", ["account"])
