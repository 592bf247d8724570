"""HTTP to rspamd: bytes that are sent in slices, answers that are JSON objects."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

import httpx

from services.filter.servers import Address

_SLICE = 64 * 1024
_ANSWER_OCTETS = 4 * 1024 * 1024
_CONNECT_S = 2.0

Fields = Sequence[tuple[bytes, bytes]]


class Answer(NamedTuple):
    """What a server said: `reason` is the text of its status line, `value` empty where it sent no JSON."""

    status: int
    reason: str
    value: dict[str, Any]


class Http:
    """Connections of this process to HTTP servers, opened when they are asked and kept where the server keeps them."""

    def __init__(self, connections: int) -> None:
        self._limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._clients: dict[Address, httpx.AsyncClient] = {}

    async def post(self, where: Address, path: str, fields: Fields, octets: bytes) -> Answer:
        """The answer to `octets` sent to that path. Raises OSError, ValueError for what is no answer; see `Servers`."""
        sent = [*fields, (b"Content-Length", str(len(octets)).encode())]
        try:
            async with self._client(where).stream("POST", path, headers=sent, content=_sliced(octets)) as response:
                body = b""
                async for piece in response.aiter_raw():
                    body += piece
                    if len(body) > _ANSWER_OCTETS:
                        raise ValueError("an answer without end")
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            # httpx has a family of its own; to whoever asks, a server that cannot be talked to is one thing.
            raise OSError(f"{type(error).__name__}: {error}".rstrip(": ")) from error
        return Answer(response.status_code, response.reason_phrase, _object(body))

    def _client(self, where: Address) -> httpx.AsyncClient:
        if (client := self._clients.get(where)) is None:
            client = self._clients[where] = httpx.AsyncClient(
                base_url=f"http://{'localhost' if where.path else where}",
                transport=httpx.AsyncHTTPTransport(uds=where.path or None, limits=self._limits, trust_env=False),
                # Whoever asks has a deadline of its own; a host that does not exist must not use it up.
                timeout=httpx.Timeout(None, connect=_CONNECT_S),
                headers={"Accept-Encoding": "identity"},
                trust_env=False,
            )
        return client


async def _sliced(octets: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(octets), _SLICE):
        yield octets[start : start + _SLICE]


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
