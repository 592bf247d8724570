"""Questions to the DNS, answered from a cache for as long as the zone allows; so is what there is not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import dns.asyncresolver
import dns.exception
import dns.flags
import dns.name
import dns.rdata
import dns.resolver
from dns.rdtypes.ANY.TXT import TXT

from services.core.cache import Cache

_SIZE = 20_000
_LONGEST_S, _NEGATIVE_S = 3600.0, 300.0  # RFC 2308 5: at most three hours; less spares whoever mends a zone


class DnsError(Exception):
    """A question has no answer; the text names it."""


class NoSuchName(DnsError):
    """NXDOMAIN: the name does not exist, with any type of record."""


class DnsUnavailable(DnsError):
    """SERVFAIL, a timeout, a name that cannot be asked for: nothing is known, ask again later."""


class Answer(NamedTuple):
    """The records of one name and type, in the order they came; none where the name has none of that type.

    `authenticated`: the configured resolver says that DNSSEC proves them (RFC 4035 3.2.3, the AD bit), and every alias
    on the way; `name`: where the aliases lead, which is the name that was asked for where there are none.
    """

    records: tuple[dns.rdata.Rdata, ...]
    authenticated: bool
    ttl_s: float
    name: str = ""

    @property
    def texts(self) -> list[str]:
        """The TXT records among them, the strings of each put together; what is not ASCII becomes U+FFFD."""
        return [b"".join(one.strings).decode("ascii", "replace") for one in self.records if isinstance(one, TXT)]


_NO_NAME = Answer((), False, _NEGATIVE_S)


class Dns:
    """One per process."""

    def __init__(self, servers: Sequence[str] = (), timeout_s: float = 5.0) -> None:
        """`servers`: "host" or "host:port" each, "[::1]:5353" for IPv6; none: those of the machine (resolv.conf)."""
        self._resolver = dns.asyncresolver.Resolver(configure=not servers)
        if servers:
            ends = [_end(each) for each in servers]
            self._resolver.nameservers = [host for host, _ in ends]
            self._resolver.nameserver_ports = dict(ends)
        self._resolver.lifetime = timeout_s
        self._resolver.timeout = min(2.0, timeout_s)
        self._resolver.use_edns(0, dns.flags.DO, 1232)
        self._resolver.flags = dns.flags.RD | dns.flags.AD
        self._kept: Cache[tuple[str, str], Answer] = Cache(_SIZE, _NEGATIVE_S)

    async def query(self, name: str, kind: str) -> Answer:
        """The records of type `kind` ("MX", "A" ...), aliases followed. Raises `NoSuchName`, `DnsUnavailable`."""
        key = name.rstrip(".").lower(), kind
        answer = await self._kept.get(key, lambda: self._ask(*key), _how_long)
        if answer is _NO_NAME:
            raise NoSuchName(f"{name} does not exist")
        return answer

    async def addresses(self, name: str) -> tuple[str, ...]:
        """IPv6 and IPv4 addresses of a host, as text. Raises as `query` does, for a name of which neither is known."""
        found = await asyncio.gather(self.query(name, "AAAA"), self.query(name, "A"), return_exceptions=True)
        answers = [each for each in found if isinstance(each, Answer)]
        texts = tuple(record.to_text() for answer in answers for record in answer.records)
        errors = [each for each in found if isinstance(each, BaseException)]
        if not texts and errors:
            raise errors[0]
        return texts

    async def _ask(self, name: str, kind: str) -> Answer:
        try:
            answer = await self._resolver.resolve(name, kind, raise_on_no_answer=False, search=False)
        except dns.resolver.NXDOMAIN:
            return _NO_NAME
        except (dns.exception.DNSException, OSError, ValueError) as error:
            raise DnsUnavailable(f"{kind} of {name}: {error}") from error
        records = tuple(answer.rrset) if answer.rrset is not None else ()
        ttl_s = max(0.0, min(float(answer.rrset.ttl), _LONGEST_S)) if answer.rrset is not None else _NEGATIVE_S
        end = answer.canonical_name.to_text(omit_final_dot=True).lower()
        return Answer(records, bool(answer.response.flags & dns.flags.AD), ttl_s, end)


def _how_long(answer: Answer) -> float:
    return answer.ttl_s


def _end(word: str) -> tuple[str, int]:
    host, colon, port = word.rpartition(":")
    if not colon or word.endswith("]") or (":" in host.strip("[]") and not host.endswith("]")):
        host, port = word, "53"
    return host.strip("[]"), int(port)
