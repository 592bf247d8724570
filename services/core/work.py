"""Work from the WORK stream: pulled ahead of need, handed out as it comes, settled without waiting."""

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from google.protobuf.message import DecodeError, Message

from services.core.line import (
    FIRST_WAIT_S,
    LONGEST_WAIT_S,
    NANOSECONDS,
    BusUnavailable,
    Line,
    Subscription,
    Unavailable,
    pub,
    status,
)

M = TypeVar("M", bound=Message)

PULL_S = 20.0
RETRY_S = 5.0
STREAM_MISSING = 10059


class Work(Generic[M]):
    """One piece of work in hand. Settling it is a plain call that waits for nothing; what gets lost comes back."""

    __slots__ = ("_line", "_reply", "message", "settled")

    def __init__(self, line: Line, reply: str, message: M) -> None:
        self._line, self._reply, self.message, self.settled = line, reply, message, False

    @property
    def deliveries(self) -> int:
        """How many times this piece has been handed out, this time included."""
        words = self._reply.split(".")
        # $JS.ACK.<stream>.<consumer>.<deliveries>..., or with <domain>.<account> before the stream.
        return int(words[4 if len(words) == 9 else 6])

    def ack(self) -> None:
        """Done: never again."""
        self._settle(b"+ACK")

    def nak(self, delay_s: float = 0) -> None:
        """Not done: hand it out again, to anybody, after `delay_s`."""
        self._settle(b'-NAK {"delay": %d}' % int(delay_s * NANOSECONDS) if delay_s else b"-NAK")

    def in_progress(self) -> None:
        """Still at it: start the ack wait again."""
        self._line.post(pub(self._reply, "", b"+WPI"))

    def term(self) -> None:
        """Cannot be done: never again."""
        self._settle(b"+TERM")

    def _settle(self, word: bytes) -> None:
        self.settled = True
        self._line.post(pub(self._reply, "", word))


class Puller(Subscription, Generic[M]):
    """Asks for work while there is room for it and hands it out as it comes: nothing waits for a batch to be full.

    Only batches that are not full keep their distance, and never longer than `spacing_s`.
    """

    def __init__(
        self,
        line: Line,
        subject: str,
        durable: str,
        cls: type[M],
        batch: int,
        handler: Callable[[list[Work[M]]], Awaitable[None]],
        ack_wait_s: float,
        spacing_s: float,
    ) -> None:
        self._filter, self._durable, self._cls, self._batch = subject, durable, cls, batch
        self._spacing_s, self._not_before = spacing_s, 0.0
        self._handler, self._ack_wait_s = handler, ack_wait_s
        self._ready: deque[Work[M]] = deque()
        self._asked_for = 0
        self._handling: dict[asyncio.Task[None], int] = {}
        self._wake = asyncio.Event()
        self._exists = self._draining = False
        super().__init__(line, f"{line.inbox}pull{line.number()}.x")
        self._loop = line.start(self._pull())

    def take(self, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        if code := status(headers):
            self._told(code, headers or b"")
            return
        self._asked_for = max(0, self._asked_for - 1)
        try:
            work = Work(self._line, reply.decode(), self._cls.FromString(data))
        except DecodeError:
            self._line.log.error("work that cannot be read is thrown away", subject=self._filter)
            self._line.post(pub(reply.decode(), "", b"+TERM"))
            return
        if self._draining:
            work.nak()
        else:
            self._ready.append(work)
            self._wake.set()

    def _told(self, code: int, headers: bytes) -> None:
        if code == 100:
            return
        # 408: the request has run out, and this many of it were not used. Anything else: the consumer may be gone.
        left = headers.partition(b"Nats-Pending-Messages: ")[2].partition(b"\r")[0]
        self._asked_for = max(0, self._asked_for - int(left)) if left else 0
        self._exists = self._exists and code == 408
        self._wake.set()

    def lost(self) -> None:
        self._asked_for, self._exists = 0, False
        self._wake.set()

    async def unsubscribe(self) -> None:
        await self.drain()

    async def drain(self) -> None:
        """Give back what no handler has begun; return when the handlers have finished."""
        self._draining = True
        await super().unsubscribe()
        while self._ready:
            self._ready.popleft().nak()
        self._wake.set()
        while self._handling:
            await asyncio.wait(self._handling)
        self._loop.cancel()

    async def _pull(self) -> None:
        wait_s = FIRST_WAIT_S
        while not self._draining:
            self._wake.clear()
            try:
                await self._ask_for_more()
                wait_s = FIRST_WAIT_S
            except BusUnavailable as error:
                self._line.log.debug("cannot pull", durable=self._durable, reason=str(error))
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, LONGEST_WAIT_S)
            self._hand_out()
            try:
                async with asyncio.timeout(PULL_S + 5):
                    await self._wake.wait()
            except TimeoutError:
                # Not even the end of the request was told: it is lost, ask again.
                self._asked_for = 0

    def _hand_out(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._ready and len(self._ready) < self._batch and now < self._not_before:
            # More will have come by then, and a batch costs little more than one.
            asyncio.get_running_loop().call_at(self._not_before, self._wake.set)
            return
        while self._ready and len(self._handling) < 2:
            self._not_before = now + self._spacing_s
            batch = [self._ready.popleft() for _ in range(min(self._batch, len(self._ready)))]
            task = self._line.start(self._handle(batch))
            self._handling[task] = len(batch)
            task.add_done_callback(self._handled)

    def _handled(self, task: asyncio.Task[None]) -> None:
        del self._handling[task]
        self._wake.set()

    async def _handle(self, batch: list[Work[M]]) -> None:
        try:
            await self._handler(batch)
        except Exception:
            self._line.log.exception("work failed", subject=self._filter, pieces=len(batch))
            for work in batch:
                if not work.settled:
                    work.nak(RETRY_S)

    async def _ask_for_more(self) -> None:
        room = 2 * self._batch - len(self._ready) - sum(self._handling.values()) - self._asked_for
        if room < self._batch:
            return
        if not self._exists:
            await self._declare()
        body = json.dumps({"batch": room, "expires": int(PULL_S * NANOSECONDS)}).encode()
        if self._line.post(pub(f"$JS.API.CONSUMER.MSG.NEXT.WORK.{self._durable}", self.subject, body)):
            self._asked_for += room

    async def _declare(self) -> None:
        config = {
            "durable_name": self._durable,
            "filter_subject": self._filter,
            "ack_policy": "explicit",
            "ack_wait": int(self._ack_wait_s * NANOSECONDS),
            "max_ack_pending": 20_000,
            "max_deliver": -1,
        }
        body: dict[str, object] = {"stream_name": "WORK", "config": config}
        verb = f"CONSUMER.DURABLE.CREATE.WORK.{self._durable}"
        declarations = await self._line.streams()
        answer = await self._line.api(verb, body)
        if answer.get("error", {}).get("err_code") == STREAM_MISSING:
            await self._line.declare(declarations)
            answer = await self._line.api(verb, body)
        if "error" in answer:
            raise Unavailable(f"consumer {self._durable}: {answer['error'].get('description', '')}")
        self._exists = True
