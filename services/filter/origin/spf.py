"""SPF: whether a domain lets a client send in its name (RFC 7208)."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Final

from services.core.dns import DnsUnavailable
from services.filter.origin import lookup, spf_macros, spf_record
from services.filter.origin.lookup import Names
from services.filter.origin.results import Result
from services.filter.origin.spf_record import BadRecord, Directive, Record

# RFC 7208 4.6.4.
MAX_LOOKUPS: Final = 10
MAX_VOID: Final = 2
_MAX_HOSTS: Final = 10


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result, why, and the mechanism that matched, where one did."""

    result: Result
    reason: str = ""
    mechanism: str = ""


class _Failed(Exception):
    """The whole evaluation ends so, however deep it is in includes."""

    def __init__(self, result: Result, reason: str) -> None:
        super().__init__(reason)
        self.outcome = Outcome(result, reason)


async def check(names: Names, ip: IPv4Address | IPv6Address, sender: str, helo: str) -> Outcome:
    """check_host() for the domain of `sender`, "postmaster@" and the HELO name for the null sender. Never raises."""
    local, _, domain = sender.rpartition("@")
    if "." not in domain.removesuffix(".") or not lookup.is_name(domain):
        return Outcome(Result.NONE, "no domain to be asked")  # RFC 7208 4.3
    client = ip.ipv4_mapped or ip if isinstance(ip, IPv6Address) else ip
    evaluation = _Evaluation(names, client, f"{local or 'postmaster'}@{domain}", helo)
    try:
        return await evaluation.host(domain)
    except _Failed as failed:
        return failed.outcome
    except DnsUnavailable as error:
        return Outcome(Result.TEMPERROR, str(error))


@dataclass(slots=True)
class _Evaluation:
    """One check_host() with all its includes, which share the limits."""

    names: Names
    ip: IPv4Address | IPv6Address
    sender: str
    helo: str
    lookups: int = 0
    void: int = 0
    validated: dict[str, str] = field(default_factory=dict)  # %{p}, by the domain it was asked for

    async def host(self, domain: str) -> Outcome:
        record = await self._record(domain)
        if record is None:
            return Outcome(Result.NONE, f"{domain} has no policy")
        for directive in record.directives:
            if await self._matches(directive, domain):
                shown = directive.mechanism + (f":{directive.domain}" if directive.domain else "")
                shown += f":{directive.network}" if directive.network else ""
                return Outcome(directive.result, self._words(directive.result, domain), shown)
        if not record.redirect:
            return Outcome(Result.NEUTRAL, f"{domain} says nothing of {self.ip}")  # RFC 7208 4.7
        self._count(f"redirect={record.redirect}")
        target = await self._expanded(record.redirect, domain)
        outcome = await self.host(target)
        if outcome.result is Result.NONE:  # RFC 7208 6.1
            raise _Failed(Result.PERMERROR, f"{domain} redirects to {target}, which has no policy")
        return outcome

    async def _record(self, domain: str) -> Record | None:
        found = [text for text in await lookup.texts(self.names, domain) if spf_record.is_record(text)]
        if not found:
            return None
        if len(found) > 1:
            raise _Failed(Result.PERMERROR, f"{domain} has several policies")  # RFC 7208 4.5
        try:
            return spf_record.parse(found[0])
        except BadRecord as error:
            raise _Failed(Result.PERMERROR, f"policy of {domain}: {error}") from error

    async def _matches(self, directive: Directive, domain: str) -> bool:
        if directive.mechanism == "all":
            return True
        if directive.network is not None:
            return self.ip in directive.network
        self._count(directive.mechanism)
        target = await self._expanded(directive.domain, domain) if directive.domain else domain
        match directive.mechanism:
            case "include":
                return await self._included(target, domain)
            case "a":
                return self._among(await self._addresses(target), directive)
            case "mx":
                return await self._exchanged(target, directive)
            case "exists":
                # RFC 7208 5.7: of type A even where the client came by IPv6.
                return bool(await self._asked(lookup.addresses(self.names, target, "A")))
            case _:
                return bool(await self._names_within(target))

    async def _included(self, target: str, domain: str) -> bool:
        match (await self.host(target)).result:
            case Result.PASS:
                return True
            case Result.NONE:  # RFC 7208 5.2
                raise _Failed(Result.PERMERROR, f"{domain} includes {target}, which has no policy")
            case _:
                return False

    async def _exchanged(self, target: str, directive: Directive) -> bool:
        hosts = await self._asked(lookup.exchanges(self.names, target))
        if len(hosts) > _MAX_HOSTS:
            raise _Failed(Result.PERMERROR, f"{target} has more than {_MAX_HOSTS} MX hosts")
        for host in hosts:
            if self._among(await self._addresses(host), directive):
                return True
        return False

    async def _names_within(self, target: str) -> list[str]:
        """Validated names of the client that are `target` or below it (RFC 7208 5.5); no answer is no name."""
        found = []
        try:
            pointers = await self._asked(lookup.pointers(self.names, self.ip.reverse_pointer))
        except DnsUnavailable:
            return []
        for name in pointers[:_MAX_HOSTS]:
            lower, within = name.lower(), target.lower().removesuffix(".")
            if lower != within and not lower.endswith("." + within):
                continue
            try:
                if str(self.ip) in await self._addresses(name):
                    found.append(name)
            except DnsUnavailable:
                continue
        return found

    async def _addresses(self, host: str) -> list[str]:
        kind = "AAAA" if isinstance(self.ip, IPv6Address) else "A"
        return await self._asked(lookup.addresses(self.names, host, kind))

    async def _asked(self, question: Awaitable[list[str]]) -> list[str]:
        answer = await question
        if not answer:
            self.void += 1
            if self.void > MAX_VOID:
                raise _Failed(Result.PERMERROR, f"more than {MAX_VOID} lookups that find nothing")
        return answer

    def _among(self, addresses: list[str], directive: Directive) -> bool:
        bits = directive.bits6 if isinstance(self.ip, IPv6Address) else directive.bits4
        return any(self.ip in ip_network(f"{address}/{bits}", strict=False) for address in addresses)

    def _count(self, term: str) -> None:
        self.lookups += 1
        if self.lookups > MAX_LOOKUPS:
            raise _Failed(Result.PERMERROR, f"more than {MAX_LOOKUPS} lookups, {term} is one too many")

    async def _expanded(self, text: str, domain: str) -> str:
        if "%" not in text:
            return text.removesuffix(".")
        name = "unknown"
        if spf_macros.asks_for_name(text):
            name = await self._validated(domain)
        return spf_macros.expand(text, spf_macros.values(self.ip, self.sender, domain, self.helo, name))

    async def _validated(self, domain: str) -> str:
        if domain not in self.validated:
            within = await self._names_within(domain)
            self.validated[domain] = within[0] if within else "unknown"
        return self.validated[domain]

    def _words(self, result: Result, domain: str) -> str:
        match result:
            case Result.PASS:
                return f"{domain} permits {self.ip}"
            case Result.FAIL:
                return f"{domain} does not permit {self.ip}"
            case Result.SOFTFAIL:
                return f"{domain} would rather not permit {self.ip}"
            case _:
                return f"{domain} says nothing of {self.ip}"
