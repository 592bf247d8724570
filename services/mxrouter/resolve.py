"""A domain to the hosts that take its mail, in the order they are to be tried."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import ip_address
from itertools import zip_longest
from random import Random
from typing import Final, NamedTuple, Protocol

from services.core.dns import Answer, DnsUnavailable, NoSuchName

# More than any honest domain has; a zone must not make us ask without end.
_MOST_HOSTS: Final = 20
_MOST_ADDRESSES: Final = 8


class Asks(Protocol):
    """The calls of `core.dns.Dns` that are made here."""

    async def query(self, name: str, kind: str) -> Answer: ...


class Host(NamedTuple):
    """One host and its addresses. `authentic`: DNSSEC proves that it is the one, and that these are its addresses.

    `bases`: the names at which TLSA records of it may stand, in the order they are to be looked for (RFC 7672 2.2.2).
    """

    name: str
    addresses: tuple[str, ...]
    authentic: bool = False
    bases: tuple[str, ...] = ()


class Unroutable(Exception):
    """There is no host to talk to: for good, or for now."""

    def __init__(self, permanent: bool, enhanced: str, text: str) -> None:
        super().__init__(text)
        self.permanent, self.enhanced, self.text = permanent, enhanced, text


class Exchanger(NamedTuple):
    preference: int
    name: str


class Resolver:
    """Finds hosts. `ourselves`: names and addresses at which the world reaches our own port 25."""

    def __init__(self, dns: Asks, ourselves: Sequence[str], *, ipv6: bool = True, random: Random | None = None) -> None:
        self._dns, self._ipv6 = dns, ipv6
        self._ourselves = frozenset(each.rstrip(".").lower() for each in ourselves)
        self._random = random or Random()

    async def mx(self, domain: str) -> tuple[Host, ...]:
        """The hosts of a domain or address literal, best first. Raises Unroutable."""
        if domain.startswith("["):
            return (_literal(domain),)
        exchangers, authentic = await self._exchangers(domain)
        found = await asyncio.gather(*(self._try_host(each.name, named=authentic) for each in exchangers))
        ours = [e.preference for e, host in zip(exchangers, found, strict=True) if self._is_ours(e.name, host)]
        # RFC 5321 5.1: hosts no better than ourselves would only send it back.
        limit = min(ours, default=1 << 16)
        usable = [(e, host) for e, host in zip(exchangers, found, strict=True) if e.preference < limit]
        if not usable:
            raise Unroutable(True, "5.4.6", f"mail for {domain} loops back to this server")
        if hosts := tuple(host for _, host in usable if isinstance(host, Host)):
            return hosts
        reasons = [host for _, host in usable if isinstance(host, Unroutable)]
        raise next((each for each in reasons if not each.permanent), reasons[0])

    async def host(self, name: str) -> Host:
        """One host by its name or address, as smarthosts are named. Raises Unroutable."""
        try:
            address = str(ip_address(name.strip("[]")))
        except ValueError:
            return await self._host(name, named=False)
        return Host(address, (address,))

    async def _exchangers(self, domain: str) -> tuple[list[Exchanger], bool]:
        try:
            answer = await self._dns.query(domain, "MX")
        except NoSuchName as error:
            raise Unroutable(True, "5.1.2", f"the domain {domain} does not exist") from error
        except DnsUnavailable as error:
            raise Unroutable(False, "4.4.3", f"the DNS does not answer: {error}") from error
        if not answer.records:
            return [Exchanger(0, domain)], answer.authenticated  # RFC 5321 5.1: the implicit MX
        found = [Exchanger(r.preference, r.exchange.to_text(omit_final_dot=True).lower()) for r in answer.records]  # type: ignore[attr-defined]
        named = [each for each in found if each.name not in (".", "@", "")]
        if not named:
            # RFC 7505 4.2
            raise Unroutable(True, "5.1.10", f"the domain {domain} accepts no mail")
        # RFC 5321 5.1: at random among equals, so that they share the load.
        self._random.shuffle(named)
        return sorted(named, key=lambda each: each.preference)[:_MOST_HOSTS], answer.authenticated

    async def _try_host(self, name: str, *, named: bool) -> Host | Unroutable:
        try:
            return await self._host(name, named=named)
        except Unroutable as error:
            return error

    async def _host(self, name: str, *, named: bool) -> Host:
        """`named`: DNSSEC proves that the mail is for a host of this name."""
        kinds = ("AAAA", "A") if self._ipv6 else ("A",)
        found = await asyncio.gather(*(self._dns.query(name, kind) for kind in kinds), return_exceptions=True)
        families, answered, unknown = [], [], None
        for each in found:
            if isinstance(each, Answer):
                answered.append(each)
                texts = [record.to_text() for record in each.records]
                self._random.shuffle(texts)
                families.append(texts)
            elif isinstance(each, DnsUnavailable):
                unknown = each
            elif not isinstance(each, NoSuchName):
                raise each
        # One family after the other in turn: a route that is dead for one of them costs one attempt, not all.
        addresses = tuple(a for pair in zip_longest(*families) for a in pair if a is not None)[:_MOST_ADDRESSES]
        if addresses:
            proven = named and unknown is None and all(answer.authenticated for answer in answered)
            end = next((answer.name for answer in answered if answer.records), "") or name
            return Host(name, addresses, proven, await self._bases(name, end, proven=proven) if named else ())
        if unknown is not None:
            raise Unroutable(False, "4.4.3", f"the DNS does not answer: {unknown}") from unknown
        raise Unroutable(True, "5.4.4", f"the mail host {name} has no address")

    async def _bases(self, name: str, end: str, *, proven: bool) -> tuple[str, ...]:
        """Where TLSA records may stand of the host `name`, whose address records stand at `end`. Raises Unroutable."""
        if proven:
            return (name,) if end == name else (end, name)
        if end == name:
            return ()
        # RFC 7672 2.2.2: an alias out of a signed zone is proven itself, whatever it leads to.
        try:
            return (name,) if (await self._dns.query(name, "CNAME")).authenticated else ()
        except NoSuchName:
            return ()
        except DnsUnavailable as error:
            raise Unroutable(False, "4.4.3", f"the DNS does not answer: {error}") from error

    def _is_ours(self, name: str, host: Host | Unroutable) -> bool:
        addresses = host.addresses if isinstance(host, Host) else ()
        return not self._ourselves.isdisjoint((name, *addresses))


def _literal(domain: str) -> Host:
    text = domain.strip("[]")
    try:
        address = str(ip_address(text[5:] if text.lower().startswith("ipv6:") else text))
    except ValueError as error:
        raise Unroutable(True, "5.1.2", f"{domain} is no address") from error
    return Host(address, (address,))
