"""Carries letters away: route to hosts, hosts to connections, a connection to each recipient's outcome.

Which failure leads where:

- A host that cannot be reached, does not greet, says 4xx before the first recipient or dies before the message was
  whole: the next address or host of the destination is tried at once.
- The server's word on a recipient or on the message, 4xx or 5xx, stands: its backup would say the same.
- A connection that dies between the last octet and its reply: later. The message may have been taken, so nobody else
  is asked now; a copy too many is the lesser evil (RFC 1047).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from services.core.telemetry import Logger, Metrics
from services.mxrouter import envelope
from services.mxrouter.carriage import Fate, Letter, Outcome, Route, Smarthost
from services.mxrouter.dialogue import Broken
from services.mxrouter.link import Link
from services.mxrouter.opening import Door, Missed, Opener
from services.mxrouter.pool import Destination, Pool
from services.mxrouter.resolve import Resolver, Unroutable
from services.mxrouter.security import Demand, Level, Security, Unfit
from services.mxrouter.transaction import Delivery, deliver

# Addresses that are tried for one letter; the next attempt begins at the front again.
_MOST_DOORS: Final = 10
_NOT_TRIED: Final = envelope.later("4.4.1", "no mail host could be tried")


@dataclass(slots=True)
class _Trip:
    """What is known so far of each recipient of one letter."""

    letter: Letter
    until: float  # when no further address is tried
    settled: dict[int, Outcome] = field(default_factory=dict)
    words: dict[int, Outcome] = field(default_factory=dict)  # of those for whom another host may be tried
    missed: Missed | None = None
    spoke: bool = False  # some host let us in

    def rest(self) -> tuple[list[int], Letter]:
        """Who is still to be told, and the letter for them alone."""
        numbers = [number for number in range(len(self.letter.addressees)) if number not in self.settled]
        return numbers, replace(self.letter, addressees=tuple(self.letter.addressees[number] for number in numbers))

    @property
    def arrived(self) -> bool:
        """Whether everyone's outcome is settled."""
        return len(self.settled) == len(self.letter.addressees)

    def enter(self, numbers: Sequence[int], delivery: Delivery) -> None:
        self.spoke = True
        for number, verdict in zip(numbers, delivery.verdicts, strict=True):
            if not verdict.elsewhere:
                self.settled[number] = verdict.outcome
            elif verdict.outcome.fate is not Fate.FAILED or number not in self.words:
                # What one host cannot do is final only when no other one could be asked.
                self.words[number] = verdict.outcome

    def miss(self, missed: Missed) -> None:
        # Of several reasons a server's own words say more than that another one was not there.
        if self.missed is None or missed.spoke or not self.missed.spoke:
            self.missed = missed
        if missed.outcome.fate is not Fate.FAILED:
            for number, outcome in self.words.items():
                if outcome.fate is Fate.FAILED:
                    self.words[number] = missed.outcome

    def outcomes(self) -> list[Outcome]:
        found = []
        last = self.missed.outcome if self.missed else _NOT_TRIED
        for number in range(len(self.letter.addressees)):
            outcome = self.settled.get(number) or self.words.get(number) or last
            # What one letter demands says nothing of the destination for others.
            alone = self.spoke or self.letter.requiretls
            found.append(outcome._replace(unreachable=outcome.unreachable and not alone))
        return found


class Client:
    """A `Carrier`. One per process; any number of letters at once, each over a connection of its own."""

    def __init__(
        self,
        resolver: Resolver,
        security: Security,
        opener: Opener,
        pool: Pool,
        log: Logger,
        metrics: Metrics,
        *,
        port: int = 25,
        at_once: int = 50,
        search_s: float = 600.0,
    ) -> None:
        """`at_once`: recipients of a transaction. `search_s`: no further address is tried after that time."""
        self._resolver, self._security, self._opener, self._pool, self._log = resolver, security, opener, pool, log
        self._port, self._at_once, self._search_s = port, at_once, search_s
        self._connections = metrics.counter(
            "relay_connections", "Connections to other servers: opened, reused or missed.", ["how"]
        )

    async def carry(self, route: Route, letter: Letter) -> list[Outcome]:
        """One outcome for each addressee, in order. Raises nothing but CancelledError."""
        trip = _Trip(letter, asyncio.get_running_loop().time() + self._search_s)
        try:
            await self._carry(route, trip)
        except Exception:
            # Ours to mend; the mail waits for it.
            self._log.exception("carrying failed", spool_id=letter.spool_id, domain=route.domain)
            trip.missed = Missed(envelope.later("4.3.0", "something went wrong here"), spoke=True)
        return trip.outcomes()

    @property
    def security(self) -> Security:
        """What it asks of hosts."""
        return self._security

    async def close(self) -> None:
        await self._pool.close()

    async def _carry(self, route: Route, trip: _Trip) -> None:
        while (link := self._pool.take(_destination(route), lambda link: _fit(link, trip.letter))) is not None:
            self._connections.labels("reused").inc()
            if await self._hand(route, link, trip, kept=True):
                break
        if trip.arrived:
            return
        try:
            if route.smarthost is not None:
                await self._by_smarthost(route, route.smarthost, trip)
            else:
                await self._by_mx(route, trip)
        except Unroutable as error:
            if error.permanent:
                trip.miss(Missed(envelope.failed(error.enhanced, error.text), spoke=True))
            else:
                trip.miss(Missed(envelope.later(error.enhanced, error.text, unreachable=True)))

    async def _by_mx(self, route: Route, trip: _Trip) -> None:
        hosts, policy = await asyncio.gather(self._resolver.mx(route.domain), self._security.policy(route.domain))
        doors, waived = _MOST_DOORS, envelope.waives_tls(trip.letter)
        for host in hosts:
            if trip.arrived or not doors:
                return
            try:
                demand = await self._security.of_mx(route.domain, host, self._port, policy, trip.letter.requiretls)
            except Unfit as unfit:
                if not waived:
                    trip.miss(Missed(unfit.outcome))
                    continue
                demand = Demand(Level.MAY, (host.name, route.domain))
            if waived:
                demand = replace(demand, testing=True, waived=True)
            doors -= await self._at_host(route, trip, host.addresses[:doors], host.name, self._port, demand)

    async def _by_smarthost(self, route: Route, smarthost: Smarthost, trip: _Trip) -> None:
        try:
            host = await self._resolver.host(smarthost.host)
        except Unroutable as error:
            # Whatever the DNS says of it, the recipient is not to blame for how we are set up.
            trip.miss(Missed(envelope.later("4.3.5", f"smarthost {smarthost.host}: {error.text}", unreachable=True)))
            return
        demand = _of_smarthost(smarthost, trip.letter)
        await self._at_host(route, trip, host.addresses[:_MOST_DOORS], host.name, smarthost.port, demand)

    async def _at_host(
        self, route: Route, trip: _Trip, addresses: Sequence[str], host: str, port: int, demand: Demand
    ) -> int:
        """Give the letter to the host at the first of its addresses that lets us in; how many were tried."""
        domain = route.domain if route.smarthost is None else route.smarthost.host  # whose TLS it is that is counted
        for tried, address in enumerate(addresses, 1):
            if asyncio.get_running_loop().time() > trip.until:
                break
            try:
                link = await self._opener.open(Door(domain, host, address, port, demand, route.smarthost))
            except Missed as missed:
                self._connections.labels("missed").inc()
                trip.miss(missed)
            else:
                self._connections.labels("opened").inc()
                await self._hand(route, link, trip, kept=False)
                return tried
        return len(addresses)

    async def _hand(self, route: Route, link: Link, trip: _Trip, kept: bool) -> bool:
        """Give the letter to one host; whether that counts: a kept connection may have died of age."""
        numbers, letter = trip.rest()
        try:
            delivery = await link.perform(deliver(link.peer, letter, link.host, self._at_once, link.reset))
        except Broken as broken:  # before it was asked anything
            self._pool.leave(link)
            trip.miss(Missed(envelope.later("4.4.2", str(broken), link.host)))
            return not kept
        link.reset = delivery.reset
        link.messages += delivery.transactions
        if delivery.usable:
            self._pool.give(_destination(route), link)
        else:
            self._pool.leave(link)
        counts = delivery.began or not kept
        if counts:
            trip.enter(numbers, delivery)
        return counts


def _destination(route: Route) -> Destination:
    return route.domain if route.smarthost is None else route.smarthost


def _fit(link: Link, letter: Letter) -> bool:
    """Whether a kept connection is as safe as the letter asks."""
    return not letter.requiretls or (link.trusted and link.peer.offers("REQUIRETLS"))


def _of_smarthost(smarthost: Smarthost, letter: Letter) -> Demand:
    """A password is given to nobody but its owner; without one a smarthost is a server like any other."""
    proven = bool(smarthost.username) or letter.requiretls
    encrypted = Level.ENCRYPT if smarthost.implicit_tls else Level.MAY
    return Demand(Level.PKIX if proven else encrypted, (smarthost.host,))
