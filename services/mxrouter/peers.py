"""The other relay pods: who they are is heard on the bus, and limits are shared among those that are heard.

A lost announcement makes the limits laxer or stricter for some seconds and harms nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from services.contracts.v1.mail_pb2 import RelayPod
from services.core.bus import Bus
from services.core.subjects import relay_pods

ANNOUNCE_S = 5.0
_SILENT_S = 3.5 * ANNOUNCE_S


class Peers:
    """One per pod."""

    def __init__(self, bus: Bus, pod: str, clock: Callable[[], float] = monotonic) -> None:
        self._bus, self._pod, self._clock = bus, pod, clock
        self._heard: dict[str, float] = {}

    async def start(self) -> None:
        """Listen; to be awaited once."""
        await self._bus.subscribe_hint(relay_pods(), RelayPod, self._hear)

    async def announce_forever(self) -> None:
        """Let the others know that we are there."""
        while True:
            self._bus.publish_hint(relay_pods(), RelayPod(pod=self._pod))
            await asyncio.sleep(ANNOUNCE_S)

    def share(self, limit: int) -> int:
        """Our part of a limit that all pods share: at least 1, or mail would stand still."""
        return max(1, limit // self.count())

    def count(self) -> int:
        """How many pods relay, this one included."""
        now = self._clock()
        self._heard = {pod: at for pod, at in self._heard.items() if now - at < _SILENT_S}
        return len(self._heard.keys() | {self._pod})

    def _hear(self, hint: RelayPod) -> None:
        self._heard[hint.pod] = self._clock()
