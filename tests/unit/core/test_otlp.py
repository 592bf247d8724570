"""The exporter against a collector that is there, then away, then back: said once each, and nothing waits for it."""

from __future__ import annotations

import asyncio
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from queue import Queue

import structlog
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from structlog.testing import capture_logs

from services.core.otlp import Exporter
from services.core.spans import Spans


class Collector(HTTPServer):
    """Takes spans, or answers 400 while it is `ill`."""

    def __init__(self) -> None:
        self.ill, self.names = False, list[str]()
        self.answered: Queue[int] = Queue()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler) -> None:
                body = handler.rfile.read(int(handler.headers["Content-Length"]))
                request = ExportTraceServiceRequest.FromString(body)
                if not self.ill:
                    self.names += [
                        s.name for r in request.resource_spans for scope in r.scope_spans for s in scope.spans
                    ]
                code = 400 if self.ill else 200
                handler.send_response(code)
                handler.send_header("Content-Length", "0")
                handler.end_headers()
                self.answered.put(code)

            def log_message(handler, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


async def test_a_collector_that_goes_and_comes_is_said_once_each() -> None:
    collector = Collector()
    with capture_logs() as logs:
        exporter = Exporter(f"http://127.0.0.1:{collector.server_port}/", "imap", "mail.test", structlog.get_logger())
        spans = Spans(exporter.keep)
        spans.first(spans.begin().traceparent, "one", spans.now())
        assert await asyncio.to_thread(collector.answered.get, timeout=60) == 200
        collector.ill = True
        for _ in range(2):
            spans.first(spans.begin().traceparent, "lost", spans.now())
            assert await asyncio.to_thread(collector.answered.get, timeout=60) == 400
        collector.ill = False
        spans.first(spans.begin().traceparent, "two", spans.now())
        await exporter.close()  # sends what is queued
    assert collector.names == ["one", "two"]
    assert [each["log_level"] for each in logs] == ["warning", "info"]
    collector.shutdown()


async def test_a_process_ends_though_nobody_takes_its_spans() -> None:
    exporter = Exporter("http://127.0.0.1:1", "imap", "mail.test", structlog.get_logger())
    spans = Spans(exporter.keep)
    spans.first(spans.begin().traceparent, "lost", spans.now())
    await asyncio.wait_for(exporter.close(), 30)
