"""One trace from the SMTP reply to the IDLE push, as a collector sees it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from services.dev.plan import Plan
from tests.flow.clients import Imap, letter, offer, submission
from tests.flow.conftest import Platform, User

SERVICES = {"posta-submission", "posta-filter", "posta-delivery", "posta-imap"}


class Seen(NamedTuple):
    """A span as it arrived."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent: str
    began: int
    ended: int
    facts: dict[str, str | int]


class Collector:
    """Takes OTLP over HTTP, as an OpenTelemetry collector does."""

    def __init__(self) -> None:
        self.spans: list[Seen] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler) -> None:
                assert handler.path == "/v1/traces"
                body = handler.rfile.read(int(handler.headers["Content-Length"]))
                self.take(ExportTraceServiceRequest.FromString(body))
                handler.send_response(200)
                handler.send_header("Content-Length", "0")
                handler.end_headers()

            def log_message(handler, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            named = {each.key: each.value.string_value for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    facts = {each.key: each.value.string_value or each.value.int_value for each in span.attributes}
                    ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                    when = (span.start_time_unix_nano, span.end_time_unix_nano)
                    self.spans.append(Seen(named["service.name"], span.name, *ids, *when, facts))

    def of(self, spool_id: str) -> list[Seen]:
        """The trace that the message belongs to."""
        ids = {each.trace_id for each in self.spans if each.facts.get("posta.spool_id") == spool_id}
        return sorted((each for each in self.spans if each.trace_id in ids), key=lambda each: each.began)

    def close(self) -> None:
        self._server.shutdown()


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture(scope="module")
def traced(new_platform: Callable[..., Platform], collector: Collector) -> Platform:
    platform = new_platform({"POSTA_OTLP_ENDPOINT": collector.url})
    platform.posta("up", "--detach")
    platform.state = platform.status()
    return platform


def test_one_trace_leads_from_the_reply_to_the_push(traced: Platform, collector: Collector) -> None:
    alice, bob = User("alice@posta.test", "posta-demo"), User("bob@posta.test", "posta-demo")
    with Imap(traced, bob) as idling, submission(traced, alice) as client:
        idling.idle()
        code, said = offer(client, alice.address, [bob.address], letter(alice.address, bob.address))
        assert code == 250
        spool_id = said.split()[-1]
        idling.heard(rb"EXISTS")
        found = traced.eventually(
            "every service has exported its part",
            lambda: {each.service for each in collector.of(spool_id)} >= SERVICES,
        )
    found = collector.of(spool_id)
    steps = {each.name: each for each in found}
    assert {(each.service, each.name) for each in found} == {
        ("posta-submission", "submission message"),
        ("posta-submission", "spool stage"),
        ("posta-filter", "filter scan"),
        ("posta-submission", "spool commit"),
        ("posta-delivery", "delivery"),
        ("posta-imap", "imap push"),
    }
    assert len(found) == len(steps)
    first = steps["submission message"]
    assert (first.parent, first.facts["smtp.code"]) == ("", 250)
    for name in ("spool stage", "filter scan", "spool commit", "delivery"):
        assert steps[name].parent == first.span_id, name
    assert steps["imap push"].parent == steps["delivery"].span_id
    order = ("submission message", "spool stage", "filter scan", "spool commit", "delivery", "imap push")
    assert [each.name for each in found] == list(order)
    assert all(each.began <= each.ended for each in found)

    (journey,) = traced.trace(spool_id)
    assert journey["trace_id"] == first.trace_id


def test_a_refusal_is_traced_and_logged_under_the_same_id(traced: Platform, collector: Collector) -> None:
    alice = User("alice@posta.test", "posta-demo")
    eicar = "X5O!P%@AP[4\\PZX54(P^)7CC)7}" + "$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
    with submission(traced, alice) as client:
        code, _ = offer(client, alice.address, [alice.address], letter(alice.address, alice.address, eicar + "\r\n"))
    assert code == 554
    scanned = traced.eventually(
        "it is exported", lambda: [s for s in collector.spans if s.facts.get("posta.action") == "reject"]
    )[-1]
    lines = [json.loads(line) for line in traced.log("filter").splitlines() if '"scanned"' in line]
    assert scanned.trace_id in {line.get("trace_id") for line in lines}


def test_a_figure_leads_to_a_trace_as_an_exemplar(traced: Platform, collector: Collector) -> None:
    plan = Plan(traced.base)
    (process,) = (each for each in plan.processes() if each.service.name == "submission")
    port = plan.ports(process)["health"]
    asked = Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": "application/openmetrics-text"})
    with urlopen(asked, timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        page = answer.read().decode()
    exemplars = [line for line in page.splitlines() if line.startswith("posta_submission_message_seconds_bucket")]
    known = {each.trace_id for each in collector.spans}
    assert any(trace_id in line for line in exemplars for trace_id in known)
    assert page.endswith("# EOF\n")
