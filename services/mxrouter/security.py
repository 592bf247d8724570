"""What a host has to prove before it is given mail: DANE, MTA-STS, a login, REQUIRETLS, or nothing.

| level   | without STARTTLS | handshake fails | certificate                          |
|---------|------------------|-----------------|--------------------------------------|
| MAY     | in the clear     | in the clear    | not looked at                        |
| ENCRYPT | not used         | not used        | not looked at                        |
| PKIX    | not used         | not used        | valid for the host, by a CA we trust |
| DANE    | not used         | not used        | as the TLSA records say              |
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path

from services.core.dns import DnsUnavailable
from services.core.store.tlsresults import TlsResult
from services.mxrouter import dane
from services.mxrouter.carriage import Outcome
from services.mxrouter.dane import Tlsa, Untrusted
from services.mxrouter.envelope import failed, later
from services.mxrouter.link import TlsFailed, certificates
from services.mxrouter.mtasts import Policies, Policy
from services.mxrouter.resolve import Asks, Host
from services.mxrouter.tally import SUCCESS, Tally


class Level(IntEnum):
    MAY = 0
    ENCRYPT = 1
    PKIX = 2
    DANE = 3


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked of one host. `names`: what its certificate may be made out to; the first one is asked for by SNI.

    `testing`: what fails is counted, and mail goes on as if nothing had been asked (RFC 8461 5). `waived`:
    the same for a message that says so itself (RFC 8689 5), and not counted: such are TLS reports, and their arrival is
    not to be a reason for further ones.
    """

    level: Level
    names: tuple[str, ...]
    policy: str = "no-policy-found"
    records: tuple[Tlsa, ...] = ()
    testing: bool = False
    waived: bool = False


class Unfit(Exception):
    """A host must not be given this mail, as `outcome` says."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.text)
        self.outcome = outcome


class Security:
    """Knows what to ask of hosts, and judges what they show. `policies` None: MTA-STS is off."""

    def __init__(
        self,
        dns: Asks | None,
        policies: Policies | None,
        trust: ssl.SSLContext,
        tally: Tally,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`dns` None: DANE is off."""
        self._dns, self._policies, self._trust, self._tally, self._clock = dns, policies, trust, tally, clock
        self._any = untrusting()

    async def policy(self, domain: str) -> Policy | None:
        """The MTA-STS policy to hand to `of_mx`. Raises nothing."""
        return None if self._policies is None else await self._policies.of(domain)

    async def of_mx(self, domain: str, host: Host, port: int, policy: Policy | None, required: bool) -> Demand:
        """What is asked of an MX host of `domain`; `required`: the sender said REQUIRETLS. Raises Unfit."""
        demand = await self._by_dane(domain, host, port)
        if demand is None and policy is not None and policy.mode != "none":
            # RFC 8461 2: DANE wins where a domain has both.
            demand = self._by_policy(domain, host, policy)
        if demand is None:
            demand = Demand(Level.MAY, (host.name, domain))
        if required and demand.level < Level.PKIX:
            if not host.authentic:
                # RFC 8689 4.2.1: a name that anybody could have put there proves nothing.
                text = f"REQUIRETLS is asked for, and neither DNSSEC nor MTA-STS vouches for {host.name}"
                raise Unfit(failed("5.7.30", text))
            return Demand(Level.PKIX, demand.names, demand.policy)
        if required and demand.testing:
            return Demand(demand.level, demand.names, demand.policy)
        return demand

    def context(self, level: Level) -> ssl.SSLContext:
        return self._trust if level is Level.PKIX else self._any

    def judge(self, demand: Demand, tls: ssl.SSLObject) -> None:
        """Return if the certificate is what was demanded. Raises TlsFailed."""
        if demand.level is Level.DANE:
            try:
                dane.verify(demand.records, certificates(tls), demand.names, self._clock())
            except Untrusted as error:
                raise TlsFailed(error.result, f"DANE: {error}") from error

    def count(self, domain: str, host: str, demand: Demand, result: str = SUCCESS) -> None:
        """Enter a connection into the tally."""
        if not demand.waived:
            self._tally.count(TlsResult(domain, demand.policy, host, result))

    async def _by_dane(self, domain: str, host: Host, port: int) -> Demand | None:
        if self._dns is None:
            return None
        try:
            base, records = await dane.records(self._dns, host, port)
        except DnsUnavailable as error:
            self.count(domain, host.name, Demand(Level.DANE, (host.name,), "tlsa"), "dnssec-invalid")
            raise Unfit(later("4.7.5", f"TLSA records of {host.name}: {error}", unreachable=True)) from error
        if not records:
            return None
        names = (base, domain)  # RFC 7672 3.2.2; the TLSA base domain is what SNI asks for (8.1)
        if not any(record.usable for record in records):
            self.count(domain, host.name, Demand(Level.DANE, names, "tlsa"), "tlsa-invalid")
            return Demand(Level.ENCRYPT, names, "tlsa")
        return Demand(Level.DANE, names, "tlsa", records)

    def _by_policy(self, domain: str, host: Host, policy: Policy) -> Demand | None:
        demand = Demand(Level.PKIX, (host.name,), "sts", testing=policy.mode == "testing")
        if policy.names(host.name):
            return demand
        self.count(domain, host.name, demand, "certificate-host-mismatch")
        if demand.testing:
            return None
        text = f"{host.name} is not among the hosts that the MTA-STS policy of {domain} names"
        raise Unfit(later("4.7.5", text, unreachable=True))


def untrusting() -> ssl.SSLContext:
    """TLS 1.2 and 1.3 with whoever is there: nobody can be trusted less than the clear text it replaces."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def trusting(ca: Path | None) -> ssl.SSLContext:
    """TLS 1.2 and 1.3 with whom the system's CAs, or those in the file `ca`, vouch for. Raises OSError."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca is not None:
        context.load_verify_locations(cafile=ca)
    return context
