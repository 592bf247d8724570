"""SPF, DKIM, DMARC and ARC of mail from other servers, told in Authentication-Results and in the verdict.

With the DNS dead every result is "temperror": whether the mail then waits is the operator's choice, and by default it
does, unless it needs no answer to pass. Nothing is ever refused for good because a question had no answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TypeVar

from services.core.dkim.canonical import Bodies
from services.core.dns import DnsUnavailable
from services.core.settings import Filter
from services.filter.engine import Engine, Finding, Stage
from services.filter.examined import INLINE_OCTETS, Examined
from services.filter.heavy import aside
from services.filter.origin import arc, dkim, dmarc, spf, statement
from services.filter.origin.dmarc import Policy, Proof, Suffixes
from services.filter.origin.key import Key
from services.filter.origin.lookup import Names
from services.filter.origin.results import Result
from services.filter.origin.statement import Client, Findings
from services.filter.verdict import Action, Rule

NAME = "auth"
# The rest is for hashing and judging; the pipeline's own clock must not ring before ours.
_SHARE = 0.8
_ACTIONS = {
    "reject": Action.REJECT,
    "quarantine": Action.QUARANTINE,
    "junk": Action.JUNK,
    "accept": Action.ACCEPT,
    "tempfail": Action.TEMPFAIL,
}

T = TypeVar("T")


def engine(settings: Filter, names: Names) -> Engine | None:
    """The engine, unless it is switched off."""
    if not settings.auth:
        return None
    origin = Origin(settings, names)
    return Engine(NAME, Stage.ORIGIN, settings.engine_deadline_s, origin.examine)


def rules(settings: Filter) -> Mapping[str, Rule]:
    """What its symbols mean for the message, as the operator wants it."""
    told = {
        "DMARC_REJECT": (settings.dmarc_reject, "Message refused by the DMARC policy of {detail}"),
        "DMARC_QUARANTINE": (settings.dmarc_quarantine, "Message refused by the DMARC policy of {detail}"),
        "SPF_FAIL": (settings.spf_fail, "Message refused by SPF: {detail}"),
    }
    made = {symbol: _rule(word, 550, "5.7.1", text) for symbol, (word, text) in told.items()}
    made["DMARC_TEMPERROR"] = _rule(
        settings.auth_temperror, 451, "4.7.1", "The DNS of {detail} cannot be asked now, try again later"
    )
    made["AUTHORS"] = Rule(Action.REJECT, 554, "5.6.0", "Message refused: too many author domains in From")
    # Nobody can be asked about it, and readers show it all the same.
    made["AUTHOR_UNREADABLE"] = Rule(Action.JUNK)
    return made


def _rule(word: str, code: int, enhanced: str, text: str) -> Rule:
    action = _ACTIONS[word]
    return Rule(action) if action in (Action.JUNK, Action.ACCEPT) else Rule(action, code, enhanced, text)


class Origin:
    """One per process."""

    def __init__(self, settings: Filter, names: Names, clock: Callable[[], float] = time.time) -> None:
        self._names, self._clock = names, clock
        self._exempt, self._trusted = settings.auth_exempt, frozenset(each.lower() for each in settings.trusted_sealers)
        self._deadline_s = settings.engine_deadline_s * _SHARE
        self._suffixes = Suffixes()

    def examine(self, examined: Examined) -> Sequence[Finding] | Awaitable[Sequence[Finding]]:
        """What is found; nothing, at once, for mail of our own users and servers."""
        client = examined.request.client
        address = _address(client.address)
        if client.door == "submission" or client.login or address is None:
            return []
        if any(address in network for network in self._exempt):
            return []
        return self._examine(examined, address)

    async def _examine(self, examined: Examined, address: IPv4Address | IPv6Address) -> Sequence[Finding]:
        octets, fields = examined.octets, examined.message.root.fields
        request = examined.request
        client = Client(address, request.client.helo, request.sender, request.client.rdns, request.client.iprev)
        signed, (authors, unreadable) = dkim.signatures(octets, fields), dmarc.authors(octets, fields)
        if len(authors) > dmarc.MAX_AUTHORS:
            return [Finding(NAME, "AUTHORS", "policy", detail=", ".join(authors))]
        sets, broken = _chain(examined)
        wanted = {each.signature.key_name for each in signed if each.signature}
        wanted |= {name for each in sets for name in (each.signature.key_name, each.sealed.key_name)}
        async with asyncio.TaskGroup() as group:
            late = self._deadline_s
            path = group.create_task(_within(spf.check(self._names, address, client.identity, client.helo), late, _SPF))
            keys = {
                name: group.create_task(_within(dkim.fetch(self._names, name), late, _KEY)) for name in sorted(wanted)
            }
            policies = {each: group.create_task(_within(self._policy(each), late, _LATE)) for each in authors}
        found: dict[str, Key | dkim.Outcome] = {name: task.result() for name, task in keys.items()}

        def verified() -> tuple[list[dkim.Outcome], arc.Outcome]:
            bodies, now = Bodies(octets, examined.message.root.body_start), self._clock()
            outcomes = [dkim.verify(octets, fields, bodies, each, _of(found, each), now) for each in signed]
            return outcomes, broken or arc.verify(octets, fields, bodies, sets, found)

        dkims, chain = await aside(verified) if len(octets) > INLINE_OCTETS else verified()
        proofs = [Proof("dkim", each.result, each.domain) for each in dkims]
        proofs.append(Proof("spf", path.result().result, client.identity.rpartition("@")[2].lower()))
        sample = int.from_bytes(request.blob_id[:4], "big") % 100
        judged = [self._judge(each, policies[each].result(), proofs, sample) for each in authors]
        decisive = dmarc.gravest(judged)
        sealer = ""
        if decisive is not None and decisive.wish is not dmarc.Wish.NONE and chain.result is Result.PASS:
            sealer = arc.vouched(octets, sets, self._trusted, decisive.domain)
        made = statement.findings(
            NAME, request.client.host, client, Findings(path.result(), dkims, chain, decisive, sealer)
        )
        if unreadable:
            made.append(Finding(NAME, "AUTHOR_UNREADABLE", "policy"))
        return made

    def _judge(
        self, domain: str, policy: Policy | DnsUnavailable | None, proofs: Sequence[Proof], sample: int
    ) -> dmarc.Outcome:
        if isinstance(policy, DnsUnavailable):
            return dmarc.unknown(domain, str(policy), proofs, self._suffixes)
        return dmarc.judge(domain, policy, proofs, self._suffixes, sample)

    async def _policy(self, domain: str) -> Policy | DnsUnavailable | None:
        try:
            return await dmarc.discover(self._names, self._suffixes, domain)
        except DnsUnavailable as error:
            return error


_SPF = spf.Outcome(Result.TEMPERROR, "no answer in time")
_KEY = dkim.Outcome(Result.TEMPERROR, "no answer in time")
_LATE = DnsUnavailable("no answer in time")


async def _within(work: Awaitable[T], limit_s: float, late: T) -> T:
    try:
        async with asyncio.timeout(limit_s):
            return await work
    except TimeoutError:
        return late


def _of(found: Mapping[str, Key | dkim.Outcome], one: dkim.Signed) -> Key | dkim.Outcome:
    return found[one.signature.key_name] if one.signature else _KEY


def _chain(examined: Examined) -> tuple[tuple[arc.ArcSet, ...], arc.Outcome | None]:
    try:
        return arc.chain(examined.octets, examined.message.root.fields), None
    except arc.BadChain as error:
        return (), arc.Outcome(Result.FAIL, str(error))


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address
