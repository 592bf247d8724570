"""From what the checks found to findings and header fields. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from services.filter.engine import Finding
from services.filter.origin import arc, dkim, dmarc, spf
from services.filter.origin.dmarc import Wish
from services.filter.origin.results import Result, Told, authentication_results, received_spf

_WORDS = frozenset(result.value for result in Result)


class Client(NamedTuple):
    """Who handed the message in, and in whose name."""

    address: IPv4Address | IPv6Address
    helo: str
    sender: str  # empty: the null reverse-path
    rdns: str = ""
    iprev: str = ""

    @property
    def identity(self) -> str:
        """What SPF is asked about: the null sender counts as the postmaster of the HELO name (RFC 7208 2.4)."""
        return self.sender or f"postmaster@{self.helo}"


@dataclass(frozen=True, slots=True)
class Findings:
    """Every outcome. `decisive`: the DMARC outcome that counts; `sealer`: who vouches for the message all the same."""

    path: spf.Outcome
    signatures: Sequence[dkim.Outcome]
    chain: arc.Outcome
    decisive: dmarc.Outcome | None
    sealer: str = ""


def findings(engine: str, host: str, client: Client, found: Findings) -> list[Finding]:
    """What is told; the first has the fields for the message, unless the door did not say its name, `host`."""
    headers = _fields(host, client, found) if host else b""
    made = [Finding(engine, f"SPF_{found.path.result.upper()}", "policy", detail=found.path.reason, headers=headers)]
    made += [
        Finding(engine, f"DKIM_{each.result.upper()}", "policy", detail=" ".join((each.domain, each.reason)).strip())
        for each in found.signatures
    ]
    if found.chain.result is not Result.NONE:
        detail = found.chain.reason + (f" {found.chain.sealers[0]}" if found.chain.sealers else "")
        made.append(Finding(engine, f"ARC_{found.chain.result.upper()}", "policy", detail=detail))
    if found.decisive is not None:
        made.append(Finding(engine, _symbol(found.decisive, found.sealer), "policy", detail=found.decisive.domain))
    return made


def _fields(host: str, client: Client, found: Findings) -> bytes:
    return authentication_results(host, list(_told(client, found))) + received_spf(
        host,
        found.path.result,
        found.path.reason,
        (
            ("client-ip", str(client.address)),
            ("envelope-from", client.sender),
            ("helo", client.helo),
            ("identity", "mailfrom" if client.sender else "helo"),
            ("receiver", host),
            ("mechanism", found.path.mechanism),
            ("problem", found.path.reason if found.path.result in (Result.TEMPERROR, Result.PERMERROR) else ""),
        ),
    )


def _symbol(outcome: dmarc.Outcome, sealer: str) -> str:
    match outcome.result:
        case Result.PASS | Result.NONE:
            return f"DMARC_{outcome.result.upper()}"
        case _ if sealer:
            return "DMARC_OVERRIDDEN"
        case Result.TEMPERROR:
            # What would not be refused anyway need not wait for the answer.
            return "DMARC_UNKNOWN" if outcome.wish is Wish.NONE else "DMARC_TEMPERROR"
        case _:
            return "DMARC_FAIL" if outcome.wish is Wish.NONE else f"DMARC_{outcome.wish.upper()}"


def _told(client: Client, found: Findings) -> Iterator[Told]:
    # RFC 8616 5 would let a local part be UTF-8; fewer readers choke on the domain alone.
    sender = client.sender if client.sender.isascii() else client.sender.rpartition("@")[2]
    identity = ("smtp.mailfrom", sender) if client.sender else ("smtp.helo", client.helo)
    yield Told("spf", found.path.result, found.path.reason, (identity,))
    for each in found.signatures:
        if (signed := each.signature) is None:
            yield Told("dkim", each.result, each.reason)
            continue
        properties = (
            ("header.d", signed.domain),
            ("header.s", signed.selector),
            ("header.a", signed.algorithm),
            ("header.b", signed.prefix),
        )
        yield Told("dkim", each.result, each.reason, properties)
    if not found.signatures:
        yield Told("dkim", Result.NONE)
    if (decisive := found.decisive) is not None:
        reason = decisive.reason
        if decisive.policy is not None and decisive.policy.percent < 100:
            reason += f" pct={decisive.policy.percent}"
        if found.sealer:
            reason += f" overridden by ARC of {found.sealer}"
        yield Told("dmarc", decisive.result, reason, (("header.from", decisive.domain),))
    if found.chain.result is not Result.NONE:
        sealer = found.chain.sealers[0] if found.chain.sealers else ""
        yield Told("arc", found.chain.result, found.chain.reason, (("header.d", sealer),))
    if client.iprev in _WORDS:
        yield Told("iprev", Result(client.iprev), client.rdns, (("policy.iprev", str(client.address)),))
