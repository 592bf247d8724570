"""What this pod knows of where mail goes: who is there, who is not, and how much each may be given. Pure.

A destination is a domain, or `host:port` of a smarthost. Nothing here is truth: what is forgotten is found out again
by one attempt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from services.mxrouter.carriage import Outcome

_ALIVE_S = 3600.0  # whoever has answered within that time is taken for alive
_KEPT_S = 6 * 3600.0  # after that long without news a failure is forgotten
_BURST_S = 10.0  # a rate a minute may be used up in the first so many seconds of it
_TIDY_AT = 10_000

Clock = Callable[[], float]


class Down(NamedTuple):
    """A destination that is not to be tried for now, and what was last heard of it or said for it."""

    wait_s: float
    outcome: Outcome


@dataclass(slots=True)
class _Destination:
    """One of them. Times are the clock's."""

    tokens: float
    filled_at: float
    visits: int = 0
    failures: int = 0
    down_until: float = 0.0
    outcome: Outcome | None = None
    stood_at: float | None = None


class Destinations:
    """All of them."""

    def __init__(self, clock: Clock, share: Callable[[int], int], *, connections: int, per_minute: int) -> None:
        """`share`: this pod's part of a limit that all pods share. `per_minute` 0: no limit."""
        self._clock, self._share = clock, share
        self._connections, self._per_minute = connections, per_minute
        self._known: dict[str, _Destination] = {}

    def down(self, name: str) -> Down | None:
        """Whether it is left alone, and for how long yet."""
        known = self._known.get(name)
        if known is None or known.outcome is None or (left := known.down_until - self._clock()) <= 0:
            return None
        return Down(left, known.outcome)

    def open(self, name: str) -> bool:
        """Whether one more visit may begin."""
        known = self._known.get(name)
        if known is None:
            return True
        # To a stranger, as after a failure, one goes ahead and looks; the others follow when it has been let in.
        limit = self._share(self._connections) if self._lives(known) else 1
        return known.visits < limit and self.may_send(name)

    def may_send(self, name: str) -> bool:
        """Whether the rate lets another message go now."""
        return not self._per_minute or self._filled(name).tokens >= 1

    def enter(self, name: str) -> None:
        """A visit begins."""
        self._of(name).visits += 1

    def leave(self, name: str) -> None:
        """It has ended."""
        self._of(name).visits -= 1
        if len(self._known) > _TIDY_AT:
            self._tidy()

    def sent(self, name: str) -> None:
        """One message goes: it counts against the rate."""
        if self._per_minute:
            self._filled(name).tokens -= 1

    def failures(self, name: str) -> int:
        """How many times in a row it could not be had."""
        return self._known[name].failures if name in self._known else 0

    def fell(self, name: str, failures: int, wait_s: float, outcome: Outcome) -> None:
        """It cannot be had, `failures` times in a row now, and is left alone for `wait_s`."""
        known = self._of(name)
        known.failures, known.outcome, known.down_until = failures, outcome, self._clock() + wait_s

    def stood(self, name: str) -> bool:
        """It has answered; True when it is back after failures."""
        known = self._of(name)
        was_down, known.stood_at = known.failures > 0, self._clock()
        known.failures, known.outcome, known.down_until = 0, None, 0.0
        return was_down

    def forgive(self, name: str = "") -> None:
        """Somebody knows better: try it (all of them, without a name) again at once."""
        for known in self._known.values() if not name else filter(None, (self._known.get(name),)):
            known.failures, known.outcome, known.down_until = 0, None, 0.0

    def alive(self, name: str) -> bool:
        """Whether it has answered of late."""
        known = self._known.get(name)
        return known is not None and self._lives(known)

    def living(self) -> list[str]:
        """Those that have answered of late."""
        return [name for name, known in self._known.items() if self._lives(known)]

    def _lives(self, known: _Destination) -> bool:
        return not known.failures and known.stood_at is not None and self._clock() - known.stood_at < _ALIVE_S

    def _of(self, name: str) -> _Destination:
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = _Destination(self._bucket(), self._clock())
        return known

    def _filled(self, name: str) -> _Destination:
        known, now = self._of(name), self._clock()
        grown = (now - known.filled_at) * self._share(self._per_minute) / 60
        known.tokens, known.filled_at = min(self._bucket(), known.tokens + grown), now
        return known

    def _bucket(self) -> float:
        return max(1.0, self._share(self._per_minute) * _BURST_S / 60) if self._per_minute else 0.0

    def _tidy(self) -> None:
        now = self._clock()
        for name, known in list(self._known.items()):
            if not known.visits and not self._lives(known) and known.down_until < now - _KEPT_S:
                del self._known[name]
