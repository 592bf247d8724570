"""Requests, counted and timed."""

from __future__ import annotations

from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.core.telemetry import Metrics

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "REPORT"})


class Meter:
    """Stands in front of the application; what dies without an answer counts as 500."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._requests = metrics.counter("requests", "Requests answered.", ["method", "code"])
        self._seconds = metrics.histogram("request_seconds", "Until the answer was sent whole.")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, code = perf_counter(), 500
        method = scope["method"] if scope["method"] in _METHODS else "other"

        async def told(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, told)
        finally:
            self._requests.labels(method, str(code)).inc()
            self._seconds.observe(perf_counter() - start)
