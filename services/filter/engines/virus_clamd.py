"""Viruses by clamd: the whole message over INSTREAM, to one of several daemons."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence

from services.core.endpoint import Endpoint, connect, endpoint
from services.core.settings import Filter
from services.filter.engine import TOO_BIG, Engine, Finding, Stage
from services.filter.examined import Examined
from services.filter.servers import Servers

NAME = "virus_clamd"
_CHUNK = 128 * 1024
_REPLY_OCTETS = 4096
_DEFAULT_PORT = 3310
# A third of the time in which clamd, unless told otherwise, hangs up on a session that asks nothing.
_IDLE_S = 10.0
_IDLE_SESSIONS = 32


def engine(settings: Filter) -> Engine | None:
    """The engine, if a daemon is configured."""
    if not settings.clamd:
        return None
    clamd = Clamd(daemons(settings), settings.engine_deadline_s)
    return Engine(NAME, Stage.CONTENT, settings.engine_deadline_s, clamd.examine)


def daemons(settings: Filter) -> list[Endpoint]:
    """Where each daemon is."""
    return [endpoint(word, _DEFAULT_PORT, "POSTA_FILTER_CLAMD") for word in settings.clamd]


class Clamd:
    """The daemons of one setting, and the sessions with them that wait for the next message."""

    def __init__(self, daemons: Sequence[Endpoint], deadline_s: float) -> None:
        self.servers = Servers(daemons, deadline_s)
        self._idle: defaultdict[Endpoint, list[Session]] = defaultdict(list)

    async def examine(self, examined: Examined) -> Sequence[Finding]:
        """What one of the daemons says. Raises NoServer, with every reason, where none could say anything."""

        async def question(where: Endpoint) -> list[Finding]:
            return _findings(await self._instream(where, examined.octets))

        return await self.servers.ask(question)

    async def _instream(self, where: Endpoint, octets: bytes) -> str:
        if (session := self._waiting(where)) is not None:
            try:
                return await self._on(session, where, octets)
            except (OSError, EOFError):
                # The daemon went away while it waited: so did the others, and nothing is known of the message yet.
                self._forget(where)
        return await self._on(await Session.open(where), where, octets)

    async def _on(self, session: Session, where: Endpoint, octets: bytes) -> str:
        kept = False
        try:
            answer = await session.instream(octets)
            kept = session.usable and len(self._idle[where]) < _IDLE_SESSIONS
            return answer
        finally:
            if kept:
                self._idle[where].append(session)
            else:
                # Whatever else may come over it is the answer to a question nobody asks any more.
                session.close()

    def _waiting(self, where: Endpoint) -> Session | None:
        """The session used last: those that are not needed grow old and are dropped here."""
        idle = self._idle[where]
        while idle:
            session = idle.pop()
            if session.usable:
                return session
            session.close()
        return None

    def _forget(self, where: Endpoint) -> None:
        for session in self._idle.pop(where, []):
            session.close()


class Session:
    """One connection, one question at a time, as clamd(8) describes IDSESSION and INSTREAM.

    Kept for many messages: with a connection for each, a 4 KiB message took 0.3 ms longer and four times our own
    processor time.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._asked, self._used_at = 0, 0.0

    @classmethod
    async def open(cls, where: Endpoint) -> Session:
        """Raises OSError."""
        session = cls(*await connect(where))
        session._writer.write(b"zIDSESSION\0")
        return session

    @property
    def usable(self) -> bool:
        """Whether the daemon most likely still listens."""
        fresh = asyncio.get_running_loop().time() - self._used_at < _IDLE_S
        return fresh and not self._reader.at_eof() and not self._writer.transport.is_closing()

    def close(self) -> None:
        self._writer.transport.abort()

    async def instream(self, octets: bytes) -> str:
        """clamd's one line about these octets; "" where it said nothing.

        Raises OSError, EOFError, and ValueError for what is no answer to this question. After those, and when it is
        cancelled, the session is of no more use.
        """
        self._asked += 1
        # clamd answers early, and hangs up, when a stream passes its StreamMaxLength: hear it rather than the hang-up.
        sending = asyncio.create_task(_send(self._writer, octets))
        try:
            answer = await self._reader.readuntil(b"\0")
        except asyncio.IncompleteReadError as cut:
            raise EOFError(f"hung up after {cut.partial[:80]!r}") from None
        except asyncio.LimitOverrunError as overrun:
            raise ValueError("an answer without end") from overrun
        finally:
            self._used_at = asyncio.get_running_loop().time()
            whole = sending.done()
            sending.cancel()
            await asyncio.wait((sending,))
            if not sending.cancelled():
                sending.exception()  # why sending failed is in the answer, or in its absence
            if not whole:
                self._writer.transport.close()
        number, _, said = answer[:_REPLY_OCTETS].rstrip(b"\0").decode("utf-8", "replace").partition(": ")
        if number != str(self._asked):
            raise ValueError(f"unexpected answer {answer[:100]!r}")
        return said.strip()


async def _send(writer: asyncio.StreamWriter, octets: bytes) -> None:
    view = memoryview(octets)
    writer.write(b"zINSTREAM\0")
    for start in range(0, len(view), _CHUNK):
        chunk = view[start : start + _CHUNK]
        writer.write(len(chunk).to_bytes(4, "big"))
        writer.write(chunk)
        await writer.drain()
    writer.write(b"\0\0\0\0")
    await writer.drain()


def _findings(answer: str) -> list[Finding]:
    if answer == "stream: OK":
        return []
    if answer.startswith("stream: ") and answer.endswith(" FOUND"):
        return [Finding(NAME, answer.removeprefix("stream: ").removesuffix(" FOUND"), "virus")]
    if "size limit exceeded" in answer:
        # A permanent reply spares the sender five days of waiting.
        return [Finding(NAME, TOO_BIG, "policy", detail=answer)]
    raise ValueError(f"unexpected answer {answer[:100]!r}")
