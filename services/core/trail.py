"""Reading the TRACE stream: what became of a message."""

import asyncio
import json
from collections import deque
from collections.abc import Callable

from services.contracts.v1.mail_pb2 import TraceEvent
from services.core.line import NANOSECONDS, Line, Subscription, Timeout, Unavailable, pub, status

WAIT_S = 5.0


class Reader(Subscription):
    """Reads the TRACE stream once, from its beginning to what was its end when asked."""

    def __init__(self, line: Line, inbox: str) -> None:
        self._arrived: asyncio.Queue[bytes | None] = asyncio.Queue()
        super().__init__(line, inbox)

    def take(self, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        self._arrived.put_nowait(None if status(headers) else data)

    def lost(self) -> None:
        self._arrived.put_nowait(None)

    async def read(self, subject: str, keep: Callable[[TraceEvent], bool], limit: int) -> list[TraceEvent]:
        config = {
            "filter_subject": subject,
            "ack_policy": "none",
            "deliver_policy": "all",
            "inactive_threshold": 10 * NANOSECONDS,
            "mem_storage": True,
        }
        answer = await self._line.api("CONSUMER.CREATE.TRACE", {"stream_name": "TRACE", "config": config})
        if "error" in answer:
            raise Unavailable(f"trace: {answer['error'].get('description', '')}")
        left = int(answer["num_pending"])
        kept: deque[TraceEvent] = deque(maxlen=limit)
        while left > 0:
            size = min(left, 500)
            body = json.dumps({"batch": size, "expires": int(WAIT_S * NANOSECONDS)}).encode()
            self._line.post(pub(f"$JS.API.CONSUMER.MSG.NEXT.TRACE.{answer['name']}", self.subject, body))
            for _ in range(size):
                data = await self._next()
                if data is None:
                    return list(kept)
                event = TraceEvent.FromString(data)
                if keep(event):
                    kept.append(event)
            left -= size
        return list(kept)

    async def _next(self) -> bytes | None:
        try:
            async with asyncio.timeout(WAIT_S + 1):
                return await self._arrived.get()
        except TimeoutError:
            raise Timeout("the trace did not arrive in time") from None
