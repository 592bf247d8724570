"""DMARC: what the domain in From wants done with mail that it did not send (RFC 7489)."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from publicsuffixlist import PublicSuffixList

from services.core.address import BadAddress
from services.core.address import domain as canonical_domain
from services.core.mime.addresses import Mailbox, parse_addresses
from services.core.mime.headers import Header, find_all, value_of
from services.filter.origin import lookup, tags
from services.filter.origin.lookup import Names
from services.filter.origin.results import Result
from services.filter.origin.tags import BadTags

# RFC 7489 6.6.1 leaves open what several authors mean; each of so many domains is asked, and the strictest is obeyed.
MAX_AUTHORS = 4
_PERCENT = re.compile(r"[0-9]{1,3}")


class Wish(StrEnum):
    """What a domain asks for (RFC 7489 6.3, p=)."""

    NONE = "none"
    QUARANTINE = "quarantine"
    REJECT = "reject"


_WISHES = frozenset(wish.value for wish in Wish)


class Policy(NamedTuple):
    """What was published, as far as receivers obey it; `domain`: where it was found."""

    domain: str
    wish: Wish
    strict_dkim: bool = False
    strict_spf: bool = False
    percent: int = 100


class Proof(NamedTuple):
    """One thing that was checked: "spf" or "dkim", its outcome, and the domain that it is about."""

    method: str
    result: Result
    domain: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """For one domain in From. `wish` is what is to be done, NONE unless the result is "fail" or hangs on an answer."""

    domain: str
    result: Result
    reason: str = ""
    wish: Wish = Wish.NONE
    policy: Policy | None = None


class Suffixes:
    """Organizational domains, by the public suffix list that is installed."""

    def __init__(self) -> None:
        self._list = PublicSuffixList()

    def organization(self, domain: str) -> str:
        """RFC 7489 3.2: one label below the public suffix; a suffix is its own."""
        return self._list.privatesuffix(domain) or domain


class Authors(NamedTuple):
    """Who a message says it is from: the domains, each once, and whether one could not be read for what it is."""

    domains: tuple[str, ...]
    unreadable: bool = False


def authors(octets: bytes, fields: tuple[Header, ...]) -> Authors:
    """The domains of the addresses in From, in all of its fields. Address literals have none. Pure."""
    found, unreadable = [], False
    for field in find_all(fields, b"from"):
        for each in parse_addresses(value_of(octets, field)):
            if not isinstance(each, Mailbox) or not each.domain:
                continue
            try:
                # A dot at the end is shown by no reader, and would otherwise be a way round every policy.
                found.append(canonical_domain(each.domain.decode("utf-8", "replace").rstrip(".")))
            except BadAddress:
                unreadable = True
    return Authors(tuple(dict.fromkeys(each for each in found if not each.startswith("["))), unreadable)


async def discover(names: Names, suffixes: Suffixes, domain: str) -> Policy | None:
    """The policy for `domain`: its own, or that of its organization (RFC 7489 6.6.3). Raises `DnsUnavailable`."""
    if (found := await _published(names, domain)) is not None:
        return _policy(domain, found, "p")
    organization = suffixes.organization(domain)
    if organization == domain or (found := await _published(names, organization)) is None:
        return None
    return _policy(organization, found, "sp")


def judge(domain: str, policy: Policy | None, proofs: Collection[Proof], suffixes: Suffixes, sample: int) -> Outcome:
    """Whether one of the proofs is the author's own; `sample`: 0 to 99, this message's place in pct=. Pure."""
    if policy is None:
        return Outcome(domain, Result.NONE, "no policy")
    aligned = [proof for proof in proofs if _aligned(proof, domain, policy, suffixes)]
    if any(proof.result is Result.PASS for proof in aligned):
        return Outcome(domain, Result.PASS, f"p={policy.wish}", policy=policy)
    wish = _sampled(policy, sample)
    if any(proof.result is Result.TEMPERROR for proof in aligned):
        # RFC 7489 6.6.2: what could still pass has not failed.
        return Outcome(domain, Result.TEMPERROR, f"p={policy.wish}", wish, policy)
    return Outcome(domain, Result.FAIL, f"p={policy.wish}", wish, policy)


def unknown(domain: str, reason: str, proofs: Collection[Proof], suffixes: Suffixes) -> Outcome:
    """Where the policy could not be had: only what would pass under any but the strictest need not wait. Pure."""
    relaxed = Policy(domain, Wish.REJECT)
    proven = any(each.result is Result.PASS and _aligned(each, domain, relaxed, suffixes) for each in proofs)
    return Outcome(domain, Result.TEMPERROR, reason, Wish.NONE if proven else Wish.REJECT)


def _aligned(proof: Proof, domain: str, policy: Policy, suffixes: Suffixes) -> bool:
    # RFC 7489 3.1.1, 3.1.2.
    strict = policy.strict_dkim if proof.method == "dkim" else policy.strict_spf
    if proof.domain == domain:
        return True
    return bool(proof.domain) and not strict and suffixes.organization(proof.domain) == suffixes.organization(domain)


def _sampled(policy: Policy, sample: int) -> Wish:
    """RFC 7489 6.6.4: who is not among the chosen per cent gets the next milder wish."""
    if sample < policy.percent:
        return policy.wish
    return Wish.QUARANTINE if policy.wish is Wish.REJECT else Wish.NONE


async def _published(names: Names, domain: str) -> dict[str, str] | None:
    found: list[dict[str, str]] = []
    for text in await lookup.texts(names, f"_dmarc.{domain}"):
        try:
            said = tags.parse(text)
        except BadTags:
            continue
        # RFC 7489 6.3: v= comes first and is spelt so.
        if next(iter(said.items()), None) == ("v", "DMARC1"):
            found.append(said)
    return found[0] if len(found) == 1 else None  # RFC 7489 6.6.3: several are none


def _policy(domain: str, said: dict[str, str], tag: str) -> Policy | None:
    asked = said.get(tag, said.get("p", "")).lower()
    if asked not in _WISHES:
        # RFC 7489 6.6.3: a record that at least wants reports is read as p=none, any other as absent.
        if not said.get("rua"):
            return None
        asked = Wish.NONE
    percent = said.get("pct", "100")
    return Policy(
        domain,
        Wish(asked),
        strict_dkim=said.get("adkim", "r").lower() == "s",
        strict_spf=said.get("aspf", "r").lower() == "s",
        percent=min(100, int(percent)) if _PERCENT.fullmatch(percent) else 100,
    )


def gravest(outcomes: Sequence[Outcome]) -> Outcome | None:
    """The one that decides over the message."""
    order = (Wish.NONE, Wish.QUARANTINE, Wish.REJECT)
    return max(outcomes, key=lambda each: (order.index(each.wish), each.result is not Result.PASS), default=None)
