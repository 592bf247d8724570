"""How TLS went with other servers, counted under the names of TLS-RPT (RFC 8460 4.3)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from services.core.store import tlsresults
from services.core.store.engine import Store, StoreUnavailable
from services.core.store.tlsresults import TlsResult
from services.core.telemetry import Logger, Metrics

SUCCESS: Final = "successful"
_MOST: Final = 50_000
_KEPT: Final = timedelta(days=8)  # a report is about the day before; whoever looks into one has a week


class Tally:
    """Counts sessions: in metrics without their domains, and in the store with them, once a while."""

    def __init__(self, metrics: Metrics, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._sessions = metrics.counter(
            "tls_sessions", "TLS with other servers by policy and result (RFC 8460 4.3).", ["policy", "result"]
        )
        self._counts: Counter[TlsResult] = Counter()
        self._clock = clock

    def count(self, session: TlsResult) -> None:
        """One more connection, or one that failed."""
        self._sessions.labels(session.policy, session.result).inc()
        # The store may be away for long; a report may miss some then, memory may not run out.
        if session in self._counts or len(self._counts) < _MOST:
            self._counts[session] += 1

    def taken(self) -> Counter[TlsResult]:
        """What was counted since the last call."""
        counts, self._counts = self._counts, Counter()
        return counts

    async def keep(self, store: Store) -> None:
        """Put what was counted into the store, and forget old days there. Raises StoreUnavailable; nothing is lost."""
        counts, today = self.taken(), self._clock().date()
        if not counts:
            return
        try:
            async with store.begin("relay.tls_results") as conn:
                await tlsresults.add(conn, today, counts)
                await tlsresults.sweep(conn, today - _KEPT)
        except BaseException:
            self._counts.update(counts)
            raise

    async def keep_all(self, store: Store, log: Logger, every_s: float) -> None:
        """`keep` for as long as the service runs, and once more when it is cancelled."""
        try:
            while True:
                await asyncio.sleep(every_s)
                await self._try_keep(store, log)
        finally:
            await self._try_keep(store, log)

    async def _try_keep(self, store: Store, log: Logger) -> None:
        try:
            await self.keep(store)
        except StoreUnavailable as error:
            log.warning("TLS results not kept yet", reason=str(error))
