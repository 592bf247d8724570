"""What becomes of an arriving message: a hint is handed on, an answer finds its question, a request is answered."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from google.protobuf.message import Message

from services.core.line import Line, NoResponders, Subscription, Unavailable, pub, status

M = TypeVar("M", bound=Message)


class Hint(Subscription, Generic[M]):
    """Calls a handler with each message: no task, no queue."""

    __slots__ = ("_cls", "_handler")

    def __init__(self, line: Line, subject: str, cls: type[M], handler: Callable[[M], Awaitable[None] | None]) -> None:
        self._cls, self._handler = cls, handler
        super().__init__(line, subject)

    def take(self, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        if (slow := self._handler(self._cls.FromString(data))) is not None:
            self._line.start(self._wait(slow))

    async def _wait(self, slow: Awaitable[None]) -> None:
        try:
            await slow
        except Exception:
            self._line.log.exception("hint handler failed", subject=self.subject)


class Replies(Subscription):
    """One inbox for all answers: the last word of the subject says which question."""

    __slots__ = ("_asked",)

    def __init__(self, line: Line, subject: str, asked: dict[int, asyncio.Future[bytes]]) -> None:
        self._asked = asked
        super().__init__(line, subject)

    def take(self, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        future = self._asked.get(int(subject.rpartition(b".")[2]))
        if future is None or future.done():
            return
        refusal = status(headers)
        if not refusal:
            future.set_result(data)
        elif refusal == 503:
            future.set_exception(NoResponders("nobody serves this subject"))
        else:
            future.set_exception(Unavailable(f"refused by the responder ({refusal})"))


class Responder(Subscription, Generic[M]):
    """Answers as many requests at a time as it may; as many again wait, the rest are refused at once."""

    def __init__(
        self,
        line: Line,
        subject: str,
        queue: str,
        cls: type[M],
        handler: Callable[[M], Awaitable[Message]],
        concurrency: int,
    ) -> None:
        self._cls, self._handler, self._concurrency = cls, handler, concurrency
        self._waiting: deque[tuple[bytes, bytes]] = deque()
        self._busy: set[asyncio.Task[None]] = set()
        super().__init__(line, subject, queue)

    def take(self, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        if len(self._busy) < self._concurrency:
            task = self._line.start(self._answer(reply, data))
            self._busy.add(task)
            task.add_done_callback(self._busy.discard)
        elif len(self._waiting) < self._concurrency:
            self._waiting.append((reply, data))
        else:
            self._refuse(reply, 429)

    def _refuse(self, reply: bytes, status: int) -> None:
        self._line.post(pub(reply.decode(), "", b"", b"NATS/1.0 %d\r\n\r\n" % status))

    async def _answer(self, reply: bytes, data: bytes) -> None:
        while True:
            try:
                answer = await self._handler(self._cls.FromString(data))
            except Exception:
                self._line.log.exception("request failed", subject=self.subject)
                self._refuse(reply, 500)
            else:
                self._line.post(pub(reply.decode(), "", answer.SerializeToString()))
            if not self._waiting:
                return
            reply, data = self._waiting.popleft()

    async def drain(self) -> None:
        """Refuse new requests by no longer listening; return when those that have come are answered."""
        self._line.post(b"UNSUB %d\r\n" % self._sid)
        await self._line.settled()
        self._line.interests.pop(self._sid, None)
        while self._busy:
            await asyncio.wait(self._busy)
