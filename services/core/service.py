"""The one lifecycle: settings, logs, health, signals, drain.

Invariants
- A service's `main` builds and starts everything, then returns; the service then runs until it is told to stop.
- Ready means: started, not draining, and every registered check passes. Alive means: the loop answers.
- A drain turns readiness red first, then lets every drain callback finish within the grace, then cancels background
  tasks, then closes in reverse order of opening.
- A dependency that is down is waited for; a background task that dies ends the process, so that whoever supervises it
  starts a clean one.
"""

import asyncio
import gc
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, Protocol, TypeVar

import uvloop
from prometheus_client import Gauge

from services.core.settings import BadSettings, Settings, load
from services.core.spans import OFF, Spans
from services.core.telemetry import Logger, Metrics, configure_logs

T = TypeVar("T")
Check = Callable[[], Awaitable[object]]
Drain = Callable[[float], Awaitable[object]]
Close = Callable[[], Awaitable[object]]

CHECK_S = 2.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 10.0


class Listening(Protocol):
    """A door, as far as counting goes."""

    @property
    def connections(self) -> int:
        """How many are open."""


class Receiving(Listening, Protocol):
    """A door that messages come in by."""

    @property
    def messages(self) -> int:
        """How many have begun to come and are not answered yet."""


class Service:
    """What a service's `main` is given: its settings, log and metrics, and where it registers what it runs."""

    def __init__(self, name: str, settings: Settings, log: Logger) -> None:
        self.name = name
        self.settings = settings
        self.log = log
        self.metrics = Metrics(name)
        self.spans = OFF
        self._connections: Gauge | None = None
        self._messages: Gauge | None = None
        self.draining = False
        self._started = False
        self._stop = asyncio.Event()
        self._failed = False
        self._refused = ""
        self._checks: dict[str, Check] = {}
        self._drains: list[Drain] = []
        self._closers: list[Close] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def ready_when(self, name: str, check: Check) -> None:
        """Be ready only while `check()` returns within two seconds; what it raises is shown by /readyz."""
        self._checks[name] = check

    def on_drain(self, drain: Drain) -> None:
        """Call `drain(grace_s)` when the service is told to stop: stop accepting, finish what is open.

        All drains run side by side; past the grace they are cancelled.
        """
        self._drains.append(drain)

    def on_close(self, close: Close) -> None:
        """Call `close()` after the drain and after background tasks have ended, last registered first."""
        self._closers.append(close)

    def shows_connections(self, door: str, listener: Listening) -> None:
        """Export how many connections `door` has open: what dashboards show and autoscalers steer by."""
        if self._connections is None:
            self._connections = self.metrics.gauge("connections", "Connections that are open.", ["door"])
        self._connections.labels(door).set_function(lambda: listener.connections)

    def shows_messages(self, door: str, listener: Receiving) -> None:
        """Export how many connections `door` has open, and how many messages come in by them: each is in memory."""
        self.shows_connections(door, listener)
        if self._messages is None:
            what = "Messages that are being received, from DATA or the first BDAT to the reply."
            self._messages = self.metrics.gauge("messages_in_hand", what, ["door"])
        self._messages.labels(door).set_function(lambda: listener.messages)

    def export_spans(self) -> None:
        """Have spans sent to the collector that is set, if one is. Raises BadSettings where that was not installed."""
        settings = self.settings.otlp
        if not settings.endpoint:
            return
        try:
            from services.core.otlp import Exporter  # who exports nothing pays for nothing
        except ModuleNotFoundError as error:
            raise BadSettings(f"POSTA_OTLP_ENDPOINT: needs posta[otlp], which is not installed: {error}") from None
        exporter = Exporter(settings.endpoint, self.name, self.settings.hostname, self.log)
        self.spans = Spans(exporter.keep, settings.share)
        self.on_close(exporter.close)

    def spawn(self, work: Coroutine[Any, Any, object], name: str) -> asyncio.Task[None]:
        """Run `work` in the background until it returns or the service has drained.

        If it raises, the service logs it, drains and exits with 1.
        """
        task = asyncio.create_task(self._watch(work, name), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def until(self, name: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """The result of the first `attempt()` that does not raise, tried with growing pauses for as long as it takes.

        Logs one line for each new reason it fails. Meant for start: the service is not ready meanwhile.
        """
        wait_s, said, started = FIRST_WAIT_S, "", time.monotonic()
        while True:
            try:
                result = await attempt()
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                if reason != said:
                    self.log.warning("waiting", dependency=name, reason=reason)
                    said = reason
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, LONGEST_WAIT_S)
            else:
                if said:
                    self.log.info("reached", dependency=name, waited_s=round(time.monotonic() - started, 1))
                return result

    def stop(self) -> None:
        """Begin the drain, as a first SIGTERM does."""
        self.draining = True
        self._stop.set()

    async def readiness(self) -> dict[str, str]:
        """What keeps the service from being ready, by check; empty when it is ready."""
        if self.draining:
            return {self.name: "draining"}
        if not self._started:
            return {self.name: "starting"}
        reasons = await asyncio.gather(*map(_reason, self._checks.values()))
        return {name: reason for name, reason in zip(self._checks, reasons, strict=True) if reason}

    async def _watch(self, work: Coroutine[Any, Any, object], name: str) -> None:
        try:
            await work
        except Exception:
            self.log.exception("background task died", task=name)
            self._failed = True
            self.stop()

    async def _live(self, main: Callable[["Service"], Awaitable[None]]) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        starting: asyncio.Task[None] | None = None
        try:
            health = await _serve_health(self)
            self.on_close(health)
            self.export_spans()
            starting = asyncio.create_task(_start(main, self))
            stopping = asyncio.create_task(self._stop.wait())
            await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if starting.done() and not starting.cancelled() and (error := starting.exception()):
                raise error
            if starting.done():
                self._settle()
                await stopping
            stopping.cancel()
        except BadSettings as error:
            # Only whoever reads a setting may know what it can be made of.
            self._refused = str(error)
        except Exception as error:
            self.log.error("cannot start", reason=f"{type(error).__name__}: {error}", exc_info=not _expected(error))
            self._failed = True
        finally:
            self.draining = True
            if starting is not None and not starting.done():
                starting.cancel()
                await asyncio.wait((starting,))
            await self._wind_down()
        if self._refused:
            sys.stderr.write(f"posta: {self._refused}\n")
            return 2
        return 1 if self._failed else 0

    def _signalled(self, number: int) -> None:
        if self.draining:
            # Asked twice: whoever asks does not want to wait for the grace.
            os._exit(1)
        self.log.info("draining", signal=signal.Signals(number).name, grace_s=self.settings.grace_s)
        self.stop()

    def _settle(self) -> None:
        self._started = True
        # What start has built lives as long as the process: no later collection need look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 20, 50)
        self.log.info("started", pid=os.getpid())

    async def _wind_down(self) -> None:
        grace_s = self.settings.grace_s
        if self._drains:
            tasks = [asyncio.ensure_future(drain(grace_s)) for drain in self._drains]
            _, late = await asyncio.wait(tasks, timeout=grace_s)
            await self._end(late)
            self._report([task for task in tasks if task not in late], "drain")
        await self._end(self._tasks)
        for close in reversed(self._closers):
            try:
                await asyncio.wait_for(close(), timeout=5)
            except Exception as error:
                self.log.warning("close failed", reason=f"{type(error).__name__}: {error}")
        self.log.info("stopped", failed=self._failed)

    async def _end(self, tasks: Iterable[asyncio.Future[Any]]) -> None:
        pending = list(tasks)
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending, timeout=5)

    def _report(self, tasks: list[asyncio.Future[object]], what: str) -> None:
        for task in tasks:
            if not task.cancelled() and (error := task.exception()):
                self.log.warning(f"{what} failed", reason=f"{type(error).__name__}: {error}")


def run(name: str, main: Callable[[Service], Awaitable[None]], env: Mapping[str, str] | None = None) -> None:
    """Be the service `name`: read settings, answer health, `await main(service)`, run until SIGTERM or SIGINT, drain.

    `main` builds and starts everything, then returns. Exit code 0 after a drain, 1 when something failed, 2 for bad
    settings, also where `main` finds them bad. A second signal exits at once.
    """
    settings = load(env)
    log = configure_logs(name, settings.log.level)

    async def live() -> int:
        return await Service(name, settings, log)._live(main)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(live())
    sys.exit(code)


async def _start(main: Callable[[Service], Awaitable[None]], service: Service) -> None:
    await main(service)


def _expected(error: Exception) -> bool:
    """True for what an operator mends (a port that is taken, a file that is missing): no traceback helps there."""
    return isinstance(error, OSError)


async def _reason(check: Check) -> str:
    try:
        await asyncio.wait_for(check(), CHECK_S)
    except TimeoutError:
        return f"no answer within {CHECK_S:g} s"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


async def _serve_health(service: Service) -> Close:
    """Listen on the health port: /healthz, /readyz and /metrics over HTTP/1.1, one request a connection."""
    settings = service.settings

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), CHECK_S)
            method, target, rest = head.split(b" ", 2)
            # Only OpenMetrics can carry exemplars.
            newer = b"application/openmetrics-text" in rest.lower()
            status, kind, body = await _page(service, target.decode("latin-1").partition("?")[0], newer=newer)
            writer.write(
                f"HTTP/1.1 {status}\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
                f"Connection: close\r\n\r\n".encode()
                + (b"" if method == b"HEAD" else body)
            )
            await writer.drain()
        except (TimeoutError, OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            # A prober that went away or does not speak HTTP is owed nothing.
            return
        finally:
            writer.close()

    if settings.health.port == 0:
        return _nothing
    server = await asyncio.start_server(answer, settings.listen_host, settings.health.port, limit=8192)

    async def close() -> None:
        server.close()

    return close


async def _nothing() -> None:
    return


async def _page(service: Service, path: str, *, newer: bool) -> tuple[str, str, bytes]:
    if path == "/metrics":
        kind = "application/openmetrics-text; version=1.0.0" if newer else "text/plain; version=0.0.4"
        return "200 OK", kind, service.metrics.exposition(openmetrics=newer)
    if path == "/healthz":
        return "200 OK", "text/plain", b"alive\n"
    if path == "/readyz":
        reasons = await service.readiness()
        if not reasons:
            return "200 OK", "text/plain", b"ready\n"
        lines = "".join(f"{name}: {reason}\n" for name, reason in reasons.items())
        return "503 Service Unavailable", "text/plain", lines.encode()
    return "404 Not Found", "text/plain", b"/healthz /readyz /metrics\n"
