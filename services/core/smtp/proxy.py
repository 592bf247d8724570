"""The PROXY protocol, version 1 and 2, from the proxies it is expected of. The header itself is read by aiosmtpd."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from aiosmtpd.proxy_protocol import AF, ProxyData, get_proxy

from services.core.smtp.session import Ends

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
    """A preamble for `serve`: required from `proxies`, not looked for from anyone else."""

    def __init__(self, proxies: Sequence[Network]) -> None:
        self._proxies = tuple(proxies)

    async def __call__(self, sock: socket.socket) -> tuple[Ends, Ends]:
        """The true ends of the connection. Raises ConnectionResetError for a proxy that does not say them."""
        peer, local = sock.getpeername(), sock.getsockname()
        direct = Ends(str(peer[0]), int(peer[1])), Ends(str(local[0]), int(local[1]))
        address = ip_address(str(peer[0]).partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None) or address
        if not any(mapped in network for network in self._proxies):
            return direct
        said: ProxyData = await get_proxy(_Octets(sock))
        if not said.valid:
            raise ConnectionResetError(f"bad PROXY header from {direct[0].host}: {said.error}")
        # LOCAL (version 2) and UNKNOWN (version 1): the proxy speaks for itself, as in a health check.
        if said.family not in (AF.INET, AF.INET6) or said.src_addr is None or said.dst_addr is None:
            return direct
        return Ends(str(said.src_addr), int(said.src_port or 0)), Ends(str(said.dst_addr), int(said.dst_port or 0))
