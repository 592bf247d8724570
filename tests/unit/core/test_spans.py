"""Steps of a trace: who keeps them, which, and what they lead to; and that nobody pays for what is off."""

from __future__ import annotations

import subprocess
import sys

from services.core.spans import OFF, Span, Spans
from services.core.telemetry import parse_trace

BLOCKED = """
import sys
sys.modules["opentelemetry"] = None
from services.core.service import run
async def main(service): raise AssertionError("started")
run("test", main, {"POSTA_DATABASE_URL": "postgresql://nobody", "POSTA_HEALTH_PORT": "0", **dict([sys.argv[1:3]])})
"""
LOADED = """
import importlib, sys
for name in ("submission", "mxrouter", "filter", "delivery", "imap", "pop", "sync"):
    importlib.import_module(f"services.{name}.__main__")
# FastAPI looks for the small API package by itself; what exports is the larger part.
print([name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))])
"""


def _python(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run((sys.executable, "-c", code, *words), capture_output=True, text=True, timeout=60)


def test_steps_follow_each_other_in_one_trace() -> None:
    kept: list[Span] = []
    spans = Spans(kept.append)
    door = spans.begin().traceparent
    began = spans.now()
    delivered = spans.step(door, "delivery", began, {"posta.account": 7})
    spans.step(delivered, "imap push", spans.now())
    spans.first(door, "submission message", began)
    delivery, push, first = kept
    assert len({each.trace.trace_id for each in kept}) == 1
    assert (first.parent, delivery.parent, push.parent) == ("", first.trace.span_id, delivery.trace.span_id)
    assert first.trace.traceparent == door
    assert delivery.facts == {"posta.account": 7}
    assert began <= delivery.began_ns <= delivery.ended_ns
    assert spans.exemplar(door) == {"trace_id": first.trace.trace_id}


def test_the_doors_choice_holds_all_the_way() -> None:
    kept: list[Span] = []
    numbers = iter([0.09, 0.1, 0.5])
    door, elsewhere = Spans(kept.append, 0.1, lambda: next(numbers)), Spans(kept.append)
    chosen = [door.begin() for _ in range(3)]
    assert [each.sampled for each in chosen] == [True, False, False]
    for each in chosen:
        context = elsewhere.step(each.traceparent, "delivery", 0)
        assert (context == each.traceparent) is not each.sampled
        door.first(each.traceparent, "submission message", 0)
        assert (elsewhere.exemplar(each.traceparent) is None) is not each.sampled
    assert {each.trace.trace_id for each in kept} == {chosen[0].trace_id}


def test_what_is_off_or_no_trace_leads_on_as_it_came() -> None:
    context = OFF.begin().traceparent
    assert parse_trace(context) is not None
    assert context.endswith("-00")
    assert OFF.step(context, "delivery", OFF.now()) == context
    kept: list[Span] = []
    for wrong in ("", "00-xyz", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"):
        assert Spans(kept.append).step(wrong, "delivery", 0) == wrong
        Spans(kept.append).first(wrong, "message", 0)
    assert kept == []


def test_no_service_loads_an_exporter_unasked() -> None:
    done = _python(LOADED)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_an_endpoint_without_the_library_is_one_clear_line() -> None:
    done = _python(BLOCKED, "POSTA_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("posta: POSTA_OTLP_ENDPOINT: needs posta[otlp]")
