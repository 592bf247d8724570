"""Where another program listens, as settings name it."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from services.core.settings import BadSettings

CONNECT_S = 2.0

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Endpoint(NamedTuple):
    """Where a server listens: on a Unix socket when `path` is set."""

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        return self.path or (f"[{self.host}]" if ":" in self.host else self.host) + f":{self.port}"


def endpoint(word: str, default_port: int, setting: str) -> Endpoint:
    """What a setting's word names: "/run/some.sock", "host:port", "[::1]:3310" or a host alone. BadSettings."""
    if word.startswith("/"):
        return Endpoint("", 0, word)
    host, colon, port = word.rpartition(":")
    if not colon or word.endswith("]"):
        host, port = word, str(default_port)
    host = host.removeprefix("[").removesuffix("]")
    if not host or "/" in host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise BadSettings(f"{setting}: expected host:port or the path of a socket")
    return Endpoint(host, int(port))


async def connect(where: Endpoint) -> Streams:
    """A connection to it. Raises OSError, a TimeoutError after two seconds: who does not take one is not there."""
    async with asyncio.timeout(CONNECT_S):
        if where.path:
            return await asyncio.open_unix_connection(where.path)
        return await asyncio.open_connection(where.host, where.port)
