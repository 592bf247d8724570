"""One letter, attempted: its way, the last hand on it, the carrier, and what is learned of the destination."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import groupby

from services.contracts.v1.mail_pb2 import RelayDestination
from services.core.bus import Bus
from services.core.dkim.keys import KeyUnusable
from services.core.spans import OFF, Facts, Spans
from services.core.store import blobs
from services.core.store.engine import Store
from services.core.subjects import relay_destination
from services.core.telemetry import Logger, tracing
from services.mxrouter.carriage import Addressee, Carrier, Fate, Letter, Outcome, Route
from services.mxrouter.destinations import Destinations
from services.mxrouter.hold import Hold
from services.mxrouter.outgoing import Finisher, Parcel
from services.mxrouter.queue import Claim, Waiting
from services.mxrouter.routes import Rules, destination, pick
from services.mxrouter.schedule import probe_wait_s
from services.mxrouter.settler import Settler

# Beyond every timeout of RFC 5321 4.5.3.2 together: a carrier that has not come back by then is lost.
_LOST_S = 3600.0

_DOOMED = Outcome(Fate.FAILED, 554, "5.3.0", "Given up by the postmaster")
_BUSY = Outcome(Fate.LATER, 451, "4.3.2", "As many messages as that relay may have are on their way to it")
_UNSIGNED = Outcome(Fate.LATER, 451, "4.7.5", "The message cannot be signed for now")
_LOCKED = Outcome(Fate.LATER, 451, "4.3.5", "The password for that relay cannot be opened")
_FAULT = Outcome(Fate.LATER, 451, "4.3.0", "Something went wrong here")


class Attempts:
    """One per pod."""

    def __init__(
        self,
        store: Store,
        bus: Bus,
        carrier: Carrier,
        finisher: Finisher,
        settler: Settler,
        destinations: Destinations,
        hold: Hold,
        log: Logger,
        *,
        pod: str,
        chance: Callable[[], float],
        spans: Spans = OFF,
    ) -> None:
        self._store, self._bus, self._carrier = store, bus, carrier
        self._finisher, self._settler = finisher, settler
        self._destinations, self._hold, self._log, self._pod, self._chance = destinations, hold, log, pod, chance
        self._spans = spans

    async def make(self, claim: Claim, rules: Rules, visited: str) -> None:
        """Attempt it and write down the outcome. `visited`: the destination that the caller has entered.

        Raises `StoreUnavailable` before anything is attempted.
        """
        with tracing(claim.traceparent):
            await self._make(claim, pick(rules, claim.sender, claim.domain), visited)

    async def _make(self, claim: Claim, route: Route, visited: str) -> None:
        name = destination(route)
        if route.smarthost is not None and route.smarthost.locked:
            await self.without(claim, _LOCKED)
        elif name == visited:
            await self._through(claim, route, name)
        elif (down := self._destinations.down(name)) is not None:
            await self.without(claim, down.outcome)
        elif not self._destinations.open(name):
            await self.without(claim, _BUSY)
        else:
            self._destinations.enter(name)
            try:
                await self._through(claim, route, name)
            finally:
                self._destinations.leave(name)

    async def without(self, claim: Claim, outcome: Outcome) -> None:
        """Write down an outcome that needs no attempt to be known."""
        await self._settler.settle(claim, [_doom(one) or outcome for one in claim.recipients])

    async def _through(self, claim: Claim, route: Route, name: str) -> None:
        async with self._hold.room(name, claim.size):
            await self._with_room(claim, route, name)

    async def _with_room(self, claim: Claim, route: Route, name: str) -> None:
        began_ns = self._spans.now()
        octets = claim.prefix + await self._content(claim)
        try:
            letters = await self._letters(claim, octets)
        except KeyUnusable as error:
            self._log.error("cannot be signed", spool_id=claim.spool_id, reason=str(error))
            await self.without(claim, _UNSIGNED)
            return
        outcomes: dict[int, Outcome] = {}
        for part, letter in letters:
            self._destinations.sent(name)
            heard = await self._carry(letter, route)
            outcomes |= {one.n: outcome for one, outcome in zip(part, heard, strict=True)}
            if any(outcome.unreachable for outcome in heard):
                break
        self._learn(name, list(outcomes.values()))
        # Who was not reached any more fares as those before.
        rest = next((outcome for outcome in outcomes.values() if outcome.unreachable), _FAULT)
        final = [_doom(one) or outcomes.get(one.n, rest) for one in claim.recipients]
        await self._settler.settle(claim, final, octets)
        facts: Facts = {"posta.spool_id": claim.spool_id, "posta.destination": name, "smtp.code": final[0].code}
        self._spans.step(claim.traceparent, "relay attempt", began_ns, facts)

    async def _content(self, claim: Claim) -> bytes:
        if claim.content is not None:
            return claim.content
        return (await blobs.read(self._store, [claim.blob_id]))[claim.blob_id]

    async def _letters(self, claim: Claim, octets: bytes) -> list[tuple[list[Waiting], Letter]]:
        """All that is to be carried, ready before any of it is: what the store cannot give stops it here.

        Those whom the same domain of ours forwarded to share a letter, as it is signed and sent in that one's name.
        """
        tried = sorted((one for one in claim.recipients if one.doomed is None), key=lambda one: one.forwarded_by or "")
        letters = []
        for forwarded_by, several in groupby(tried, key=lambda one: one.forwarded_by):
            parcel = Parcel(claim.sender, claim.sender_account_id, claim.door, forwarded_by)
            finished = await self._finisher.finish(parcel, octets)
            part = list(several)
            letter = Letter(
                spool_id=claim.spool_id,
                sender=finished.sender,
                addressees=tuple(Addressee(one.address, one.notify, one.orcpt) for one in part),
                octets=finished.octets,
                smtputf8=claim.smtputf8,
                ret=claim.ret,
                envid=claim.envid,
                requiretls=claim.requiretls,
            )
            letters.append((part, letter))
        return letters

    async def _carry(self, letter: Letter, route: Route) -> list[Outcome]:
        count = len(letter.addressees)
        try:
            async with asyncio.timeout(_LOST_S):
                heard = await self._carrier.carry(route, letter)
            if len(heard) == count:
                return heard
            self._log.error("carrier lost count", spool_id=letter.spool_id, outcomes=len(heard), recipients=count)
        except Exception as error:
            # A fault of ours is no reason to lose mail, nor to stop relaying.
            self._log.error("carrier failed", spool_id=letter.spool_id, domain=route.domain, exc_info=error)
        return [_FAULT] * count

    def _learn(self, name: str, outcomes: list[Outcome]) -> None:
        """Remember what this says of the destination, and tell the other pods where it is news."""
        bad = next((outcome for outcome in outcomes if outcome.unreachable), None)
        if bad is not None and self._destinations.down(name) is not None:
            # Whatever else was on its way when it fell has met the same end: one event, not as many failures.
            return
        if bad is not None:
            failures = self._destinations.failures(name) + 1
            wait_s = probe_wait_s(failures, self._chance())
            self._destinations.fell(name, failures, wait_s, bad)
            self._log.info("destination unreachable", destination=name, failures=failures, again_in_s=round(wait_s))
            self._tell(name, int(wait_s * 1000), failures, bad)
        elif any(outcome.host for outcome in outcomes) and self._destinations.stood(name):
            self._log.info("destination is back", destination=name)
            self._tell(name, 0, 0, outcomes[0])

    def _tell(self, name: str, wait_ms: int, failures: int, outcome: Outcome) -> None:
        self._bus.publish_hint(
            relay_destination(),
            RelayDestination(
                pod=self._pod,
                destination=name,
                wait_ms=wait_ms,
                failures=failures,
                code=outcome.code,
                enhanced=outcome.enhanced,
                text=outcome.text,
                host=outcome.host,
            ),
        )


def _doom(one: Waiting) -> Outcome | None:
    return None if one.doomed is None else _DOOMED._replace(text=one.doomed or _DOOMED.text)
