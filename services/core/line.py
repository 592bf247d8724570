"""What a subscription sees of the connection to the bus, and the few words of the NATS protocol it speaks itself."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

from services.core.telemetry import Logger

NANOSECONDS = 1_000_000_000
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 2.0


class BusUnavailable(Exception):
    """The bus could not do it now; trying later may help."""


class Unavailable(BusUnavailable):
    """No connection to NATS, or NATS or the responder said it cannot."""


class NoResponders(BusUnavailable):
    """Nobody serves this subject at the moment."""


class Timeout(BusUnavailable):
    """No answer came in time; it is not known whether the request was seen."""


class Line(Protocol):
    """The connection, whether it is up or not; `Bus` is one."""

    log: Logger
    inbox: str
    """Subjects below this one are ours alone."""
    interests: "dict[int, Subscription]"

    def number(self) -> int:
        """A number never given before."""

    def post(self, *commands: bytes) -> bool:
        """Queue protocol lines for the next write; False, and nothing queued, when they cannot be sent."""

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` until it ends or the bus is closed."""

    async def api(self, verb: str, body: dict[str, object]) -> dict[str, Any]:
        """What JetStream answers to `verb`. Raises BusUnavailable."""

    async def settled(self) -> None:
        """Return when whatever the server sent before now has been taken, or the connection is gone."""

    async def streams(self) -> int:
        """Return when the streams are declared: how many times they have been so far."""

    async def declare(self, declarations: int) -> None:
        """Declare the streams anew, unless somebody has since `declarations`. Raises BusUnavailable."""


class Subscription:
    """An interest in a subject, alive across reconnects until `unsubscribe`."""

    __slots__ = ("_line", "_sid", "queue", "subject")

    def __init__(self, line: "Line", subject: str, queue: str = "") -> None:
        self._line, self._sid, self.subject, self.queue = line, line.number(), subject, queue
        line.interests[self._sid] = self
        line.post(self.command())

    def command(self) -> bytes:
        return f"SUB {self.subject} {self.queue} {self._sid}\r\n".encode()

    def take(self, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        raise AssertionError("every kind of subscription takes its own messages")

    def lost(self) -> None:
        """The connection is gone; what had been asked of it will not come."""

    async def unsubscribe(self) -> None:
        """Take no further messages. Safe to call twice."""
        if self._line.interests.pop(self._sid, None) is not None:
            self._line.post(b"UNSUB %d\r\n" % self._sid)


def pub(subject: str, reply: str, payload: bytes, head: bytes = b"") -> bytes:
    if head:
        return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (
            subject.encode(),
            reply.encode(),
            len(head),
            len(head) + len(payload),
            head,
            payload,
        )
    return b"PUB %b %b %d\r\n%b\r\n" % (subject.encode(), reply.encode(), len(payload), payload)


def status(headers: bytes | None) -> int:
    """The status of a message without content ("NATS/1.0 503"), 0 for a message that has some."""
    return int(headers[9:12]) if headers is not None and headers[8:9] == b" " else 0
