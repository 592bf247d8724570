"""Viruses by clamd: the whole message over INSTREAM, to one of several daemons."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import NamedTuple

from services.core.settings import BadSettings, Filter
from services.filter.engine import Engine, Finding, Stage
from services.filter.examined import Examined

NAME = "virus_clamd"
_CONNECT_S = 2.0
_SHUNNED_S = 5.0
_CHUNK = 128 * 1024
_REPLY_OCTETS = 4096
_DEFAULT_PORT = 3310


class ClamdFailed(Exception):
    """No daemon gave an answer that can be relied on."""


class Daemon(NamedTuple):
    """Where a clamd listens: a Unix socket when `path` is set."""

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


def daemon(word: str) -> Daemon:
    """The daemon that a setting names: "/run/clamd.sock", "host:port", "[::1]:3310" or a host alone. BadSettings."""
    if word.startswith("/"):
        return Daemon("", 0, word)
    host, colon, port = word.rpartition(":")
    if not colon or word.endswith("]"):
        host, port = word, str(_DEFAULT_PORT)
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise BadSettings("POSTA_FILTER_CLAMD: expected host:port or the path of a socket")
    return Daemon(host.removeprefix("[").removesuffix("]"), int(port))


def engine(settings: Filter) -> Engine | None:
    """The engine, if a daemon is configured."""
    if not settings.clamd:
        return None
    clamd = Clamd([daemon(word) for word in settings.clamd], settings.engine_deadline_s)
    return Engine(NAME, Stage.CONTENT, settings.engine_deadline_s, clamd.examine)


class Clamd:
    """Several daemons in turn; one that failed is asked last for a few seconds."""

    def __init__(self, daemons: Sequence[Daemon], deadline_s: float) -> None:
        self._daemons, self._deadline_s = tuple(daemons), deadline_s
        self._turns = itertools.count()
        self._shunned: dict[Daemon, float] = {}

    async def examine(self, examined: Examined) -> Sequence[Finding]:
        """What one of the daemons says. Raises ClamdFailed, with every reason, where none could say anything."""
        loop = asyncio.get_running_loop()
        # Each of those that are left gets an equal share of the time that is left; a hung one must not use it all up.
        end = loop.time() + self._deadline_s * 0.95
        reasons = []
        order = self._order(loop.time())
        for asked, each in enumerate(order):
            try:
                async with asyncio.timeout((end - loop.time()) / (len(order) - asked)):
                    return _findings(await instream(each, examined.octets))
            except TimeoutError:
                reasons.append(f"{each}: no answer in time")
            except (OSError, EOFError, ValueError) as error:
                reasons.append(f"{each}: {error}")
            self._shunned[each] = loop.time() + _SHUNNED_S
        raise ClamdFailed("; ".join(reasons))

    def _order(self, now: float) -> list[Daemon]:
        turn = next(self._turns) % len(self._daemons)
        rotated = self._daemons[turn:] + self._daemons[:turn]
        return sorted(rotated, key=lambda each: self._shunned.get(each, 0.0) > now)


async def instream(where: Daemon, octets: bytes) -> str:
    """clamd's one line about these octets, as clamd(8) describes INSTREAM; "" where it said nothing.

    Raises OSError, EOFError, ValueError for an answer without end; TimeoutError where it cannot be reached in 2 s.
    """
    async with asyncio.timeout(_CONNECT_S):
        if where.path:
            reader, writer = await asyncio.open_unix_connection(where.path)
        else:
            reader, writer = await asyncio.open_connection(where.host, where.port)
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
        # It will be too big tomorrow as well: a permanent reply spares the sender five days of waiting.
        return [Finding(NAME, "TOO_BIG_TO_EXAMINE", "policy", detail=answer)]
    raise ValueError(f"unexpected answer {answer[:100]!r}")
