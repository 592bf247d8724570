"""How old clamd's signatures are: a scanner that learns nothing new finds less every day, and says nothing about it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

from services.core.endpoint import Endpoint, connect
from services.core.telemetry import Logger, Metrics

EVERY_S = 600.0
_ANSWER_S = 10.0
_LONGEST = 1024


class Freshness:
    """Asks each daemon for its version from time to time; the gauge tells the oldest signatures."""

    def __init__(self, daemons: Sequence[Endpoint], log: Logger, metrics: Metrics) -> None:
        self._daemons, self._log = tuple(daemons), log
        self._made_at = metrics.gauge("signatures_timestamp_seconds", "When the oldest signatures in use were made.")

    async def watch_forever(self) -> None:
        """Until cancelled. A daemon that does not answer leaves the gauge as it was: the engine's faults tell of it."""
        while True:
            await self.look()
            await asyncio.sleep(EVERY_S)

    async def look(self) -> None:
        """Ask all of them once."""
        moments = []
        for daemon in self._daemons:
            try:
                async with asyncio.timeout(_ANSWER_S):
                    moments.append(made_at(await _version(daemon)))
            except (OSError, EOFError, ValueError, TimeoutError) as error:
                self._log.warning("age of signatures unknown", daemon=str(daemon), reason=str(error))
        if moments:
            self._made_at.set(min(moments).timestamp())


async def _version(daemon: Endpoint) -> str:
    reader, writer = await connect(daemon)
    try:
        writer.write(b"zVERSION\0")
        return (await reader.readuntil(b"\0"))[:_LONGEST].rstrip(b"\0").decode("ascii", "replace")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise EOFError("no version was told") from error
    finally:
        writer.close()


def made_at(version: str) -> datetime:
    """The date in "ClamAV 1.4.2/27460/Wed Nov 20 10:33:51 2026". Raises ValueError where there is none."""
    words = version.split("/", 2)
    if len(words) < 3:
        # So says a daemon that has no signatures, or none that came from freshclam.
        raise ValueError(f"no date in {version!r}")
    try:
        return datetime.strptime(words[2].strip(), "%a %b %d %H:%M:%S %Y").replace(tzinfo=UTC)
    except ValueError:
        raise ValueError(f"no date in {version!r}") from None
