"""How TLS went with other servers, counted under the names of TLS-RPT (RFC 8460 4.3)."""

from __future__ import annotations

from collections import Counter
from typing import Final, NamedTuple

from services.core.telemetry import Metrics

SUCCESS: Final = "successful"


class Session(NamedTuple):
    """What the report for a domain counts. `policy`: tlsa | sts | no-policy-found."""

    domain: str
    policy: str
    host: str
    result: str


_MOST: Final = 50_000


class Tally:
    """Counts sessions: in metrics without their domains, and in `taken` with them, for whoever keeps the reports."""

    def __init__(self, metrics: Metrics) -> None:
        self._sessions = metrics.counter(
            "tls_sessions", "TLS with other servers by policy and result (RFC 8460 4.3).", ["policy", "result"]
        )
        self._counts: Counter[Session] = Counter()

    def count(self, session: Session) -> None:
        """One more connection, or one that failed."""
        self._sessions.labels(session.policy, session.result).inc()
        # Whoever should take them may be away; a report may miss some, memory may not run out.
        if session in self._counts or len(self._counts) < _MOST:
            self._counts[session] += 1

    def taken(self) -> Counter[Session]:
        """What was counted since the last call."""
        counts, self._counts = self._counts, Counter()
        return counts

    def give_back(self, counts: Counter[Session]) -> None:
        """What could not be kept now: the next call of `taken` has it again."""
        self._counts.update(counts)
