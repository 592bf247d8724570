"""A web server of another domain: what it was asked, and what it answers."""

from __future__ import annotations

import asyncio
import re
import ssl

from tests.unit.mxrouter.world import World


class Web:
    """Answers everything alike, over TLS."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.bodies: list[bytes] = []
        self.body = ""
        self.status = "200 OK"
        self.silent = False
        self.keeps = False  # the connection, for another question
        self.port = 0

    @classmethod
    async def at(cls, address: str, tls: ssl.SSLContext, world: World) -> Web:
        """One at a port of its own, closed with the world."""
        web = cls()
        server = await asyncio.start_server(web.answer, address, 0, ssl=tls)
        web.port = server.sockets[0].getsockname()[1]
        world.keep(server)
        return web

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
            while self.keeps:
                await self._answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        length = re.search(r"(?i)content-length: (\d+)", self.asked[-1])
        self.bodies.append(await reader.readexactly(int(length[1]) if length else 0))
        if self.silent:
            await reader.read()
        body = self.body.encode()
        head = f"HTTP/1.1 {self.status}\r\nContent-Type: text/plain\r\nLocation: https://localhost:{self.port}/\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
