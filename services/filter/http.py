"""HTTP to rspamd: bytes that are sent in slices, answers that are JSON objects.

Over a connection for each request, since rspamd closes it after every answer. h11 knows the protocol, the streams are
ours: a client library with a pool took four times the processor time (2.2 ms a message against 0.6).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import h11

from services.core.endpoint import Endpoint, connect

_SLICE = 64 * 1024
_ANSWER_OCTETS = 4 * 1024 * 1024

Fields = Sequence[tuple[bytes, bytes]]


class Answer(NamedTuple):
    """What a server said: `reason` is the text of its status line, `value` empty where it sent no JSON."""

    status: int
    reason: str
    value: dict[str, Any]


async def post(where: Endpoint, path: str, fields: Fields, octets: bytes) -> Answer:
    """The answer to `octets` sent to that path. Raises OSError, ValueError for what is no answer; see `Servers`."""
    reader, writer = await connect(where)
    wire = h11.Connection(h11.CLIENT)
    # An answer may come before all of a large message has been sent, and a hang-up with it.
    sending = asyncio.create_task(_send(writer, wire, path, fields, octets))
    try:
        return await _receive(reader, wire)
    except h11.RemoteProtocolError as error:
        raise ValueError(f"no HTTP answer: {error}") from error
    finally:
        sending.cancel()
        await asyncio.wait((sending,))
        writer.transport.abort()
        if not sending.cancelled():
            sending.exception()  # why sending failed is in the answer, or in its absence


async def _send(writer: asyncio.StreamWriter, wire: h11.Connection, path: str, fields: Fields, octets: bytes) -> None:
    length = str(len(octets)).encode()
    head = [(b"Host", b"localhost"), (b"Connection", b"close"), (b"Content-Length", length), *fields]
    writer.write(_wire(wire.send(h11.Request(method="POST", target=path, headers=head))))
    for start in range(0, len(octets), _SLICE):
        writer.write(_wire(wire.send(h11.Data(data=octets[start : start + _SLICE]))))
        await writer.drain()
    wire.send(h11.EndOfMessage())
    await writer.drain()


def _wire(octets: bytes | None) -> bytes:
    return octets or b""


async def _receive(reader: asyncio.StreamReader, wire: h11.Connection) -> Answer:
    status, reason, body = 0, "", b""
    while True:
        event = wire.next_event()
        if event is h11.NEED_DATA:
            wire.receive_data(await reader.read(_SLICE))
        elif isinstance(event, h11.Response):
            status, reason = event.status_code, event.reason.decode("latin-1")
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > _ANSWER_OCTETS:
                raise ValueError("an answer without end")
        elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed) or event is h11.PAUSED:
            return Answer(status, reason, _object(body))


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
