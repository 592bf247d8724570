"""How logins end, counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from time import perf_counter

from services.core.auth.login import AuthFailed, AuthThrottled, AuthUnavailable
from services.core.telemetry import Metrics

_RESULTS: dict[type[Exception], str] = {
    AuthFailed: "failed",
    AuthUnavailable: "unavailable",
    AuthThrottled: "throttled",
}


class Tally:
    """`with tally.login():` counts and times what the block does; without metrics it does nothing."""

    def __init__(self, metrics: Metrics | None) -> None:
        self._metrics = metrics is not None
        if metrics is not None:
            self._logins = metrics.counter("logins", "Logins tried, by how they ended.", ["result"])
            self._seconds = metrics.histogram("login_seconds", "Time until a login that succeeded was answered.")

    def login(self) -> AbstractContextManager[None]:
        """Counts one login by what the block raises."""
        return self._login() if self._metrics else nullcontext()

    @contextmanager
    def _login(self) -> Iterator[None]:
        start = perf_counter()
        try:
            yield
        except tuple(_RESULTS) as error:
            self._logins.labels(_RESULTS[type(error)]).inc()
            raise
        self._logins.labels("ok").inc()
        self._seconds.observe(perf_counter() - start)
