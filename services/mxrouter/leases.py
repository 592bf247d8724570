"""What this pod has in hand: leased from the queue, and kept as long as the pod lives; and what dead pods had."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from time import monotonic

from services.core.group import Group
from services.core.ids import SpoolId
from services.core.store.engine import Store, StoreUnavailable
from services.core.telemetry import Logger
from services.mxrouter import queue
from services.mxrouter.queue import Claim, Kind, Lease
from services.mxrouter.schedule import LONGEST_WAIT_S

_HASTENED_S = 3600.0


class Leases:
    """One per pod. Methods raise `StoreUnavailable`."""

    def __init__(self, store: Store, pod: str, lease_s: float, log: Logger) -> None:
        self._store, self._pod, self._lease_s, self._log = store, pod, lease_s, log
        self._held: dict[tuple[SpoolId, int], int] = {}
        self._named: Group[tuple[SpoolId, str], Claim | None] = Group(self._claim_these, 256, 256)  # each weighs 1

    async def claim_one(self, spool_id: SpoolId, domain: str) -> list[Claim]:
        """That fresh letter, or none if somebody has it in hand; those asked for together cost one statement."""
        claim = await self._named.put((spool_id, domain), 1)
        return [] if claim is None else [claim]

    async def claim(self, domain: str, kind: Kind, letters: int) -> list[Claim]:
        """Up to so many letters for the domain; `settled` or `give_back` ends each."""
        claims = await queue.claim(self._store, self._pod, domain, kind, letters, self._lease_s)
        self._hold(claims)
        return claims

    async def give_back(self, claims: Sequence[Claim]) -> None:
        """They were not attempted."""
        self.settled(claims)
        if claims:
            await queue.give_back(self._store, self._pod, list(_rows(claims)))

    def settled(self, claims: Iterable[Claim]) -> None:
        """They are no longer in hand."""
        for spool_id, n, _ in _rows(claims):
            self._held.pop((spool_id, n), None)

    async def renew_forever(self) -> None:
        """Keep them: a letter may take as long as the remote lets it (RFC 5321 4.5.3.2 allows ten minutes a reply)."""
        while True:
            await asyncio.sleep(self._lease_s / 3)
            held = [(spool_id, n, attempts) for (spool_id, n), attempts in self._held.items()]
            try:
                if held:
                    await queue.renew(self._store, self._pod, held, self._lease_s)
            except StoreUnavailable as error:
                # Nobody else can take them up meanwhile either.
                self._log.warning("leases not renewed", reason=str(error), recipients=len(held))

    async def free_forever(self) -> None:
        """End the leases, of any pod, that nobody has renewed for a whole lease as this process measures time.

        Neither the pods' nor the store's wall clock has a say: set forward, they would give away what is just being
        sent; set back, they would keep what a killed pod had in hand until the old time has come again. So it is with
        retries: those due later than any schedule says are brought back.
        """
        since: dict[Lease, float] = {}
        while True:
            await asyncio.sleep(self._lease_s / 3)
            try:
                found = await queue.leases(self._store)
                now, others = (
                    monotonic(),
                    [one for one in found if self._held.get((one.spool_id, one.n)) != one.attempts],
                )
                since = {lease: since.get(lease, now) for lease in others}
                dead = [lease for lease, at in since.items() if now - at >= self._lease_s]
                if dead and (freed := await queue.free(self._store, dead)):
                    self._log.warning("leases ended that nobody renewed", recipients=freed)
                if early := await queue.hasten(self._store, LONGEST_WAIT_S + 2 * self._lease_s, _HASTENED_S):
                    self._log.warning("retries brought back: the clock was set back", recipients=early)
            except StoreUnavailable as error:
                # Meanwhile nobody could renew: what is seen from now on counts.
                self._log.warning("leases not looked at", reason=str(error))
                since = {}

    async def _claim_these(self, letters: list[tuple[SpoolId, str]]) -> Sequence[Claim | None]:
        claims = await queue.claim_these(self._store, self._pod, letters, self._lease_s)
        self._hold(claims)
        found = {(claim.spool_id, claim.domain): claim for claim in claims}
        return [found.pop(letter, None) for letter in letters]

    def _hold(self, claims: Iterable[Claim]) -> None:
        self._held |= {(spool_id, n): attempts for spool_id, n, attempts in _rows(claims)}


def _rows(claims: Iterable[Claim]) -> Iterable[tuple[SpoolId, int, int]]:
    return ((claim.spool_id, one.n, one.attempts) for claim in claims for one in claim.recipients)
