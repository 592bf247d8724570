"""HTTPS with servers that the DNS of strangers names: bounded in time and octets, and only in public places."""

from __future__ import annotations

import asyncio
import ssl
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, NamedTuple

import httpx

from services.mxrouter.resolve import Resolver, Unroutable

_ADDRESSES: Final = 2
_NAT64, _UNICAST = ip_network("64:ff9b::/96"), ip_network("2000::/3")


class HttpsError(Exception):
    """There is no answer; says why. `untrusted`: the server could not prove its name."""

    def __init__(self, text: str, *, untrusted: bool = False) -> None:
        super().__init__(text)
        self.untrusted = untrusted


class Answer(NamedTuple):
    """What a server said; more octets than were asked for are cut off somewhere behind them."""

    status: int
    octets: bytes


class Https:
    """Asks. A redirect is an answer, not followed. `private`: servers may have loopback and other private addresses."""

    def __init__(
        self, resolver: Resolver, trust: ssl.SSLContext, *, timeout_s: float = 10.0, private: bool = False
    ) -> None:
        self._resolver, self._trust, self._timeout_s, self._private = resolver, trust, timeout_s, private

    async def get(self, url: str, most: int) -> Answer:
        """What lies there, its first `most` octets and some more. Raises HttpsError."""
        return await self._ask("GET", url, most)

    async def post(self, url: str, kind: str, octets: bytes) -> int:
        """The status that answers octets of that media type. Raises HttpsError."""
        return (await self._ask("POST", url, 0, {"Content-Type": kind}, octets)).status

    async def _ask(
        self, method: str, url: str, most: int, fields: dict[str, str] | None = None, octets: bytes | None = None
    ) -> Answer:
        try:
            where = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise HttpsError(f"{url!r} is no URL: {error}") from error
        if where.scheme != "https":
            raise HttpsError(f"{url!r} is not https")
        host = where.raw_host.decode("ascii")
        failure = HttpsError(f"{host} has no public address")
        for address in (await self._addresses(host))[:_ADDRESSES]:
            request = httpx.Request(
                method,
                # By address, so that the name is asked for where all others are; SNI and certificate are of the host.
                where.copy_with(host=address),
                headers={"Host": where.netloc.decode("ascii"), "Accept-Encoding": "identity", **(fields or {})},
                content=octets,
                extensions={"sni_hostname": host},
            )
            try:
                async with asyncio.timeout(self._timeout_s):  # httpx bounds each step, not their sum
                    return await self._send(request, most)
            except TimeoutError:
                failure = HttpsError(f"{host}: no answer within {self._timeout_s:g} s")
            except httpx.HTTPError as error:
                untrusted = isinstance(_root(error), ssl.SSLCertVerificationError)
                failure = HttpsError(f"{host}: {error}", untrusted=untrusted)
        raise failure

    async def _addresses(self, host: str) -> list[str]:
        try:
            found = (await self._resolver.host(host)).addresses
        except Unroutable as error:
            raise HttpsError(error.text) from error
        return [address for address in found if self._private or _public(address)]

    async def _send(self, request: httpx.Request, most: int) -> Answer:
        # A connection is never used again: it has proven one name, and another host may have the same address.
        async with httpx.AsyncClient(verify=self._trust, timeout=self._timeout_s, trust_env=False) as client:
            response = await client.send(request, stream=True)
            octets = b""
            if most:
                async for piece in response.aiter_raw():
                    octets += piece
                    if len(octets) > most:
                        break
            await response.aclose()
            return Answer(response.status_code, octets)


def _public(address: str) -> bool:
    """Whether the world may be there: a stranger must not have us talk to what only we can reach."""
    ip = ip_address(address)
    if isinstance(ip, IPv6Address):
        # What stands for an IPv4 address is judged as that one.
        inner = IPv4Address(ip.packed[12:]) if ip in _NAT64 else ip.ipv4_mapped or ip.sixtofour
        if inner is None and ip not in _UNICAST:
            return False
        ip = inner or ip
    return ip.is_global and not ip.is_multicast


def _root(error: BaseException) -> BaseException:
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error
