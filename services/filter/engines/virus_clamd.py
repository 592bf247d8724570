"""Viruses by clamd: the whole message over INSTREAM, to one of several daemons."""

from __future__ import annotations

import asyncio
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


def engine(settings: Filter) -> Engine | None:
    """The engine, if a daemon is configured."""
    if not settings.clamd:
        return None
    daemons = [endpoint(word, _DEFAULT_PORT, "POSTA_FILTER_CLAMD") for word in settings.clamd]
    clamd = Clamd(daemons, settings.engine_deadline_s)
    return Engine(NAME, Stage.CONTENT, settings.engine_deadline_s, clamd.examine)


class Clamd:
    """The daemons of one setting."""

    def __init__(self, daemons: Sequence[Endpoint], deadline_s: float) -> None:
        self.servers = Servers(daemons, deadline_s)

    async def examine(self, examined: Examined) -> Sequence[Finding]:
        """What one of the daemons says. Raises NoServer, with every reason, where none could say anything."""

        async def question(where: Endpoint) -> list[Finding]:
            return _findings(await instream(where, examined.octets))

        return await self.servers.ask(question)


async def instream(where: Endpoint, octets: bytes) -> str:
    """clamd's one line about these octets, as clamd(8) describes INSTREAM; "" where it said nothing.

    Raises OSError, EOFError, ValueError for an answer without end; TimeoutError where it cannot be reached in 2 s.
    """
    reader, writer = await connect(where)
    try:
        # clamd answers early, and hangs up, when a stream passes its StreamMaxLength: hear it rather than the hang-up.
        sending = asyncio.create_task(_send(writer, octets))
        try:
            answer = await reader.readuntil(b"\0")
        except asyncio.IncompleteReadError as cut:
            raise EOFError(f"hung up after {cut.partial[:80]!r}") from None
        except asyncio.LimitOverrunError as overrun:
            raise ValueError("an answer without end") from overrun
        finally:
            sending.cancel()
            await asyncio.wait((sending,))
            if not sending.cancelled():
                sending.exception()  # why sending failed is in the answer, or in its absence
        return answer[:_REPLY_OCTETS].rstrip(b"\0").decode("utf-8", "replace").strip()
    finally:
        writer.transport.abort()


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
