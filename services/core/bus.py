"""What services say to each other, typed by protobuf class. The only file that imports nats.

Invariants
- Hints (`publish_hint`, `subscribe_hint`) are at most once: never waited for, never raised about, dropped while NATS is
  away.
- Work (`publish_work`, `consume_work`) is at least once: published means acknowledged by the stream, and what is not
  acked comes back. Whoever consumes it must bear seeing it twice.
- What is on the bus can be lost whole. Streams and consumers are declared again whenever they are found missing.
- One connection, and one road for the first connect and every reconnect: a fresh client, then every interest again.
- No task and no queue per subscription: an arriving message is one dictionary look-up and one plain call. nats-py's own
  Subscription holds a task and a queue, 4.7 KiB; ours is 0.3 KiB, and the imap service holds one per live account.
"""

import asyncio
import itertools
import json
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message
from nats.aio.client import Client
from nats.errors import ConnectionClosedError
from nats.errors import Error as NatsError

from services.contracts.v1.mail_pb2 import Envelope, TraceEvent
from services.core.line import (
    FIRST_WAIT_S,
    LONGEST_WAIT_S,
    BusUnavailable,
    NoResponders,
    Subscription,
    Timeout,
    Unavailable,
    pub,
)
from services.core.responder import Hint, Replies, Responder
from services.core.subjects import (
    Keeping,
    changed,
    directory_changed,
    scan,
    streams,
    trace,
    work_learn,
    work_local,
    work_remote,
)
from services.core.telemetry import Logger, logger
from services.core.trail import Reader
from services.core.work import Puller, Work

__all__ = [
    "Bus",
    "BusUnavailable",
    "NoResponders",
    "Subscription",
    "Timeout",
    "Unavailable",
    "Work",
    "changed",
    "directory_changed",
    "scan",
    "trace",
    "work_learn",
    "work_local",
    "work_remote",
]

M = TypeVar("M", bound=Message)
R = TypeVar("R", bound=Message)

CONNECT_S, ACK_S, API_S = 2.0, 5.0, 5.0
UNSENT_BYTES = 8 * 1024 * 1024
TRACES_KEPT, TRACE_FLUSH_S = 10_000, 0.05
NAME_IN_USE = 10058
_NO_ENVELOPE = Envelope()


class _Client(Client):
    """nats-py for the handshake, TLS, pings and parsing; messages go straight to our subscriptions."""

    def __init__(self, interests: dict[int, Subscription], log: Logger) -> None:
        super().__init__()
        self.interests = interests
        self.log = log
        self.gone = asyncio.Event()

    async def open(self, url: str, name: str) -> None:
        await self.connect(
            servers=url.replace(",", " ").split(),
            name=name,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=int(CONNECT_S),
            ping_interval=15,
            closed_cb=self._closed,
            error_cb=self._erred,
        )

    async def _closed(self) -> None:
        self.gone.set()

    async def _erred(self, error: Exception) -> None:
        self.log.debug("nats", reason=f"{type(error).__name__}: {error}")

    def post(self, *commands: bytes) -> bool:
        """Queue protocol lines for the next write; False, and nothing queued, when they could not be sent."""
        if self._flush_queue is None or not self.is_connected or self._pending_data_size > UNSENT_BYTES:
            return False
        self._pending += commands
        self._pending_data_size += sum(map(len, commands))
        if self._flush_queue.empty():
            self._flush_queue.put_nowait(asyncio.get_running_loop().create_future())
        return True

    async def round_trip(self, timeout_s: float) -> None:
        """Return when the server has seen all we posted and we all it sent. Raises TimeoutError, NatsError."""
        if self._flush_queue is None or not self.is_connected:
            raise ConnectionClosedError
        # nats-py's flush writes its PING past what is still queued, so wait for the queue to be written first.
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._flush_queue.put_nowait(written)
        async with asyncio.timeout(timeout_s):
            await written
            await self.flush()

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        # The parser awaits this for every message; returning at once keeps the read loop going.
        if (interest := self.interests.get(sid)) is not None:
            try:
                interest.take(subject, reply, data, headers)
            except Exception:
                # An exception here would end nats-py's read loop and leave a deaf connection.
                self.log.exception("message dropped", subject=interest.subject)


class Bus:
    """A connection to NATS that is always being kept up; use `Bus.connect`."""

    def __init__(self, url: str, name: str, log: Logger, keeping: Keeping | None) -> None:
        self.log = log
        self._url, self._name, self._keeping = url, name, keeping
        self._client: _Client | None = None
        self._numbers = itertools.count(1)
        self.interests: dict[int, Subscription] = {}
        self._asked: dict[int, asyncio.Future[bytes]] = {}
        self.inbox = f"_INBOX.{secrets.token_hex(11)}."
        self._replies = Replies(self, self.inbox + "*", self._asked)
        self._declared = asyncio.Event()
        self._declaring = asyncio.Lock()
        self._declarations = 0
        self._tried = asyncio.Event()
        self._said = ""
        self._traces: deque[bytes] = deque(maxlen=TRACES_KEPT)
        self._trace_timer: asyncio.TimerHandle | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._keeper = asyncio.create_task(self._keep_connected(), name="bus")

    @classmethod
    async def connect(cls, url: str, name: str, log: Logger | None = None, keeping: Keeping | None = None) -> "Bus":
        """A bus that connects to `url` (several, separated by commas, for a cluster) and reconnects for ever.

        Returns after the first attempt, whether it succeeded or not: look at `check`. `keeping` is how the
        streams are to be; without it those that exist are left as they are.
        """
        bus = cls(url, name, log or logger(name), keeping)
        await bus._tried.wait()
        return bus

    @property
    def connected(self) -> bool:
        """Whether there is a connection to NATS at the moment."""
        return self._client is not None

    async def check(self) -> None:
        """Return when NATS answers and the streams exist; raise BusUnavailable otherwise."""
        client = self._client
        if client is None:
            raise Unavailable("not connected to NATS")
        try:
            await client.round_trip(2)
        except (TimeoutError, NatsError) as error:
            raise Unavailable(f"NATS does not answer: {error}") from error
        if not self._declared.is_set():
            raise Unavailable("JetStream is not ready")

    async def drain(self, grace_s: float) -> None:
        """Take no new requests and no new work; return when those in hand are finished. `grace_s` is the caller's."""
        busy = [each for each in self.interests.values() if isinstance(each, Responder | Puller)]
        await asyncio.gather(*(each.drain() for each in busy))

    async def close(self) -> None:
        """Send what is queued and disconnect. No method may be used afterwards."""
        self._flush_traces()
        self._keeper.cancel()
        for task in self._background:
            task.cancel()
        await self.settled()
        if (client := self._client) is not None:
            await client.close()
        self._fail_asked("the bus was closed")

    # ---- hints ---------------------------------------------------------------------------------------------

    def publish_hint(self, subject: str, message: Message) -> bool:
        """Tell whoever listens; never raises, never waits. False: NATS is away and the hint is dropped."""
        return self.post(pub(subject, "", message.SerializeToString(), _context(message)))

    async def subscribe_hint(
        self, subject: str, cls: type[M], handler: Callable[[M], Awaitable[None] | None]
    ) -> Subscription:
        """Call `handler` with each `cls` that arrives on `subject`, now and after every reconnect.

        A plain function is called at once in the read loop and must be quick; a coroutine function gets a task.
        """
        return Hint(self, subject, cls, handler)

    # ---- request and reply ---------------------------------------------------------------------------------

    async def request(self, subject: str, message: Message, reply_cls: type[R], timeout_s: float) -> R:
        """The answer of one of those that serve `subject`. Raises NoResponders, Timeout or Unavailable."""
        data = await self._ask(subject, message.SerializeToString(), timeout_s, _context(message))
        try:
            return reply_cls.FromString(data)
        except DecodeError as error:
            raise Unavailable(f"the answer on {subject} is no {reply_cls.__name__}") from error

    async def respond(
        self, subject: str, queue: str, cls: type[M], handler: Callable[[M], Awaitable[Message]], concurrency: int
    ) -> Subscription:
        """Answer requests on `subject`, at most `concurrency` at a time, sharing them with the others of `queue`.

        As many again wait their turn, those beyond are refused at once. A handler that raises makes the asker's
        request raise Unavailable.
        """
        return Responder(self, subject, queue, cls, handler, concurrency)

    # ---- work ----------------------------------------------------------------------------------------------

    async def publish_work(self, subject: str, message: Message, msg_id: str) -> None:
        """Return when the stream has stored the message; the same `msg_id` within two minutes is stored once.

        Concurrent calls share the connection's writes. Raises BusUnavailable; the message may then be stored or not.
        """
        head = b"NATS/1.0\r\nNats-Msg-Id: %b\r\n%b" % (msg_id.encode(), _context(message)[10:] or b"\r\n")
        payload = message.SerializeToString()
        declarations = self._declarations
        try:
            answer = await self._ask(subject, payload, ACK_S, head)
        except NoResponders:
            # Nobody listens where the stream should: it was lost. Of many that find out, one declares it.
            await self.declare(declarations)
            answer = await self._ask(subject, payload, ACK_S, head)
        if b'"error"' in answer:
            raise Unavailable(f"not stored: {json.loads(answer)['error'].get('description', '')}")

    async def consume_work(
        self,
        subject: str,
        durable: str,
        cls: type[M],
        batch: int,
        handler: Callable[["list[Work[M]]"], Awaitable[None]],
        ack_wait_s: float = 30,
        spacing_s: float = 0,
    ) -> Subscription:
        """Hand work on `subject` to `handler`, whatever has arrived up to `batch` at once, two batches in hand at most.

        A batch that is not full waits until `spacing_s` after the last one was handed out.

        The consumer `durable` is shared by every process that names it. The handler settles each piece by ack, nak or
        term; what it leaves comes back after `ack_wait_s`. When it raises, the unsettled pieces are naked.
        """
        return Puller(self, subject, durable, cls, batch, handler, ack_wait_s, spacing_s)

    # ---- trace ---------------------------------------------------------------------------------------------

    def publish_trace(self, event: TraceEvent) -> None:
        """Note a step of a message's way. Sent in the background; while NATS is away the newest 10,000 are kept."""
        self._traces.append(pub(trace(event.envelope.spool_id), "", event.SerializeToString()))
        if self._trace_timer is None:
            self._trace_timer = asyncio.get_running_loop().call_later(TRACE_FLUSH_S, self._flush_traces)

    async def read_trace(
        self, subject: str | None = None, keep: Callable[[TraceEvent], bool] | None = None, limit: int = 10_000
    ) -> list[TraceEvent]:
        """The events on `subject` (every message's without one) that `keep` wants: the last `limit`, oldest first.

        Raises BusUnavailable.
        """
        reader = Reader(self, self.inbox + f"read{self.number()}.x")
        try:
            events = await reader.read(subject or trace(), keep or (lambda _event: True), limit)
        finally:
            await reader.unsubscribe()
        return events

    def _flush_traces(self) -> None:
        if self._trace_timer is not None:
            self._trace_timer.cancel()
            self._trace_timer = None
        # Kept back until the stream is there to catch them; _declare sends them on.
        if self._traces and self._declared.is_set() and self.post(*self._traces):
            self._traces.clear()

    # ---- the connection ------------------------------------------------------------------------------------

    def number(self) -> int:
        return next(self._numbers)

    async def settled(self) -> None:
        if (client := self._client) is not None:
            try:
                await client.round_trip(2)
            except (TimeoutError, NatsError) as error:
                self.log.debug("nats", reason=str(error))

    async def streams(self) -> int:
        await self._declared.wait()
        return self._declarations

    def post(self, *commands: bytes) -> bool:
        return self._client is not None and self._client.post(*commands)

    async def _ask(self, subject: str, payload: bytes, timeout_s: float, head: bytes = b"") -> bytes:
        loop = asyncio.get_running_loop()
        token = self.number()
        future: asyncio.Future[bytes] = loop.create_future()
        self._asked[token] = future
        timer = loop.call_later(timeout_s, _expire, future, subject, timeout_s)
        try:
            if not self.post(pub(subject, f"{self.inbox}{token}", payload, head)):
                raise Unavailable("not connected to NATS")
            return await future
        finally:
            timer.cancel()
            del self._asked[token]

    def _fail_asked(self, reason: str) -> None:
        for future in self._asked.values():
            if not future.done():
                future.set_exception(Unavailable(reason))

    async def api(self, verb: str, body: dict[str, object]) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(await self._ask("$JS.API." + verb, json.dumps(body).encode(), API_S))
        return answer

    async def _keep_connected(self) -> None:
        wait_s = FIRST_WAIT_S
        while True:
            client = _Client(self.interests, self.log)
            try:
                async with asyncio.timeout(2 * CONNECT_S):
                    await client.open(self._url, self._name)
            except (OSError, TimeoutError, NatsError) as error:
                self._say("nats unreachable", f"{type(error).__name__}: {error}")
                self._tried.set()
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, LONGEST_WAIT_S)
                continue
            wait_s = FIRST_WAIT_S
            self._client = client
            client.post(*[interest.command() for interest in self.interests.values()])
            self.start(self._declare_at_last())
            await client.gone.wait()
            self._client = None
            self._declared.clear()
            self._say("nats lost", str(client.last_error or ""))
            self._fail_asked("the connection to NATS was lost")
            for interest in list(self.interests.values()):
                interest.lost()

    def _say(self, event: str, reason: str = "") -> None:
        # One line for each change of state, not one for each attempt.
        if self._said != event + reason:
            self._said = event + reason
            (self.log.warning if reason or event == "nats lost" else self.log.info)(event, reason=reason)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def _declare_at_last(self) -> None:
        client, wait_s = self._client, FIRST_WAIT_S
        while self._client is client:
            try:
                await self.declare(self._declarations)
            except BusUnavailable as error:
                self._say("jetstream not ready", str(error))
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, LONGEST_WAIT_S)
            else:
                self._say("nats connected")
                break
        self._tried.set()

    async def declare(self, declarations: int) -> None:
        """Create the streams or bring them up to date, if nobody has since `declarations`. Raises BusUnavailable."""
        async with self._declaring:
            if self._declarations != declarations:
                return
            for config in streams(self._keeping or Keeping()):
                answer = await self.api(f"STREAM.CREATE.{config['name']}", config)
                if answer.get("error", {}).get("err_code") == NAME_IN_USE:
                    if self._keeping is None:
                        continue
                    answer = await self.api(f"STREAM.UPDATE.{config['name']}", config)
                if "error" in answer:
                    raise Unavailable(f"stream {config['name']}: {answer['error'].get('description', '')}")
            self._declarations += 1
            self._declared.set()
            self._flush_traces()


def _context(message: Message) -> bytes:
    """The trace context of an exported trace as a header too, for tools that know nothing of our Envelope."""
    traceparent: str = getattr(message, "envelope", _NO_ENVELOPE).traceparent
    return b"NATS/1.0\r\ntraceparent: %b\r\n\r\n" % traceparent.encode() if traceparent.endswith("-01") else b""


def _expire(future: asyncio.Future[bytes], subject: str, timeout_s: float) -> None:
    if not future.done():
        future.set_exception(Timeout(f"no answer on {subject} within {timeout_s:g} s"))
