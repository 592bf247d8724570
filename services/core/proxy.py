"""The PROXY protocol, version 1 and 2, from the proxies it is expected of. The header itself is read by aiosmtpd."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from aiosmtpd.proxy_protocol import AF, V2_CMD, ProxyData, get_proxy

from services.core.ends import Ends, end

Network = IPv4Network | IPv6Network


class _Octets:
    """Reads a socket octet for octet, so that nothing of what follows the header is taken."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()

    async def read(self, num_bytes: int = -1) -> bytes:
        return await self._loop.sock_recv(self._sock, max(1, num_bytes))

    async def readexactly(self, n: int) -> bytes:
        held = b""
        while len(held) < n:
            if not (more := await self._loop.sock_recv(self._sock, n - len(held))):
                raise ConnectionResetError("the proxy closed within its header")
            held += more
        return held

    async def readuntil(self, until_chars: bytes | None = None) -> bytes:
        held = b""
        while not held.endswith(until_chars or b"\n"):
            held += await self.readexactly(1)
            # The longest version 1 header is 107 octets with its CRLF.
            if len(held) > 107:
                raise ConnectionResetError("the proxy's header does not end")
        return held


class FromProxies:
    """A preamble for `Reception`: required from `proxies`, not looked for from anyone else."""

    def __init__(self, proxies: Sequence[Network]) -> None:
        self._proxies = tuple(proxies)

    async def __call__(self, sock: socket.socket) -> tuple[Ends, Ends]:
        """The true ends of the connection. Raises ConnectionResetError for a proxy that does not say them."""
        direct = end(sock.getpeername()), end(sock.getsockname())
        address = ip_address(direct[0].host)
        if not any(address in network for network in self._proxies):
            return direct
        said: ProxyData = await get_proxy(_Octets(sock))
        if not said.valid:
            raise ConnectionResetError(f"bad PROXY header from {direct[0].host}: {said.error}")
        # LOCAL (version 2) and UNKNOWN (version 1): the proxy speaks for itself, as in a health check.
        # Version 2 may name addresses with LOCAL, to be ignored.
        if said.command == V2_CMD.LOCAL or said.family not in (AF.INET, AF.INET6):
            return direct
        if said.src_addr is None or said.dst_addr is None:
            return direct
        return end((said.src_addr, said.src_port or 0)), end((said.dst_addr, said.dst_port or 0))
