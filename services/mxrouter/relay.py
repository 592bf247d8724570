"""The way out: who is visited, by how many at once, and in whose turn.

A visit is one task at one destination: it leases letters for a domain, has them carried one after the other, and goes
on until none is left. One that a ticket begins is for the letter that was just accepted, and ends with it unless others
found no room meanwhile. A look at the queue every two seconds, less often while looking takes long, finds all else:
retries, what a ticket was lost for, what did not fit. First attempts and retries have slots of their own, and of those
for first attempts the last quarter is for destinations that have answered of late: whatever hangs, hangs elsewhere.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from prometheus_client import Gauge

from services.contracts.v1.mail_pb2 import DirectoryChanged, RelayDestination, Ticket
from services.core.bus import Bus, Work, directory_changed
from services.core.ids import SpoolId
from services.core.seal import Seal, Unopened
from services.core.settings import Relay as Settings
from services.core.store import routes as rules_kept
from services.core.store.engine import Store, StoreUnavailable
from services.core.store.routes import Rule
from services.core.subjects import relay_destination
from services.core.telemetry import Logger, Metrics
from services.mxrouter import queue
from services.mxrouter.attempt import Attempts
from services.mxrouter.carriage import Fate, Outcome
from services.mxrouter.destinations import Destinations, Down
from services.mxrouter.leases import Leases
from services.mxrouter.plan import said
from services.mxrouter.queue import RECIPIENTS_AT_ONCE, Claim, Kind
from services.mxrouter.routes import Rules, destination, pick, table

_LETTERS_AT_ONCE = 16  # leased by one visit ahead of need
_NOTICES_AT_ONCE = 100
_DOMAINS_AT_ONCE = 500
_NAK_S = 5.0
_RULES_EVERY_S = 10.0
_DEPTH_EVERY_S = 30.0
_BREATH_S = 0.25  # between two looks, however many visits end
_AT_WORK, _LONGEST_PAUSE_S = 0.1, 10.0  # a tenth of the time may be spent looking, however long the queue is
_STATES = ("fresh", "waiting", "due", "sending", "held")


class Relay:
    """One per pod: `serve` takes tickets, `run_forever` does the rest."""

    def __init__(
        self, store: Store, bus: Bus, leases: Leases, attempts: Attempts, destinations: Destinations,
        settings: Settings, seal: Seal, log: Logger, metrics: Metrics, *, pod: str,
    ) -> None:  # fmt: skip
        self._store, self._bus, self._leases, self._attempts = store, bus, leases, attempts
        self._destinations, self._settings, self._log, self._pod = destinations, settings, log, pod
        self._seal = seal
        self._kept: list[Rule] = []
        self._slots = {Kind.FRESH: settings.slots, Kind.RETRY: settings.retry_slots}
        self._taken: Counter[Kind] = Counter()
        self._visited: Counter[tuple[str, Kind]] = Counter()
        self._visits: set[asyncio.Task[None]] = set()
        self._behind: set[str] = set()  # domains for which fresh letters found no room
        self._rules: Rules = {}
        self._wake = asyncio.Event()
        self._draining = self._rules_old = False
        self._in_progress: Gauge = metrics.gauge("relay_visits", "Visits in progress.", ["kind"])
        self._recipients: Gauge = metrics.gauge("relay_queue_recipients", "Recipients in the queue.", ["state"])
        self._oldest: Gauge = metrics.gauge("relay_queue_oldest_seconds", "Age of the oldest message.", ["state"])

    async def start(self) -> None:
        """Read the rules and listen to the other pods; to be awaited once. Raises `StoreUnavailable`."""
        await self._bus.subscribe_hint(relay_destination(), RelayDestination, self._hear)
        await self._bus.subscribe_hint(directory_changed(), DirectoryChanged, self._rules_changed)
        await self._read_rules()

    async def serve(self, works: list[Work[Ticket]]) -> None:
        """Begin visits for what the tickets name. A ticket only wakes: what it finds no room for is found again."""
        try:
            spool_ids = [SpoolId(work.message.envelope.spool_id) for work in works]
            for spool_id, domain in await queue.offered(self._store, spool_ids):
                if not self._visit(domain, Kind.FRESH, spool_id):
                    self._behind.add(domain)
        except StoreUnavailable as error:
            self._log.warning("relaying put off", reason=str(error), tickets=len(works))
            for work in works:
                work.nak(_NAK_S)
            return
        for work in works:
            work.ack()

    async def run_forever(self) -> None:
        """Look at the queue, at the rules and at the figures, each in its time."""
        loop = asyncio.get_running_loop()
        rules_at, depth_at = loop.time() + _RULES_EVERY_S, loop.time()
        while not self._draining:
            self._wake.clear()
            now = loop.time()
            try:
                if self._rules_old or now >= rules_at:
                    rules_at = now + _RULES_EVERY_S
                    await self._read_rules()
                for kind in Kind:
                    await self._look(kind)
                if now >= depth_at:
                    depth_at = now + _DEPTH_EVERY_S
                    await self._measure()
            except StoreUnavailable as error:
                self._log.warning("queue not looked at", reason=str(error))
            await asyncio.sleep(min(max(_BREATH_S, (loop.time() - now) / _AT_WORK), _LONGEST_PAUSE_S))
            try:
                async with asyncio.timeout(self._settings.poll_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def drain(self, grace_s: float) -> None:
        """Begin nothing new; return when the letters on their way have arrived. `grace_s` is the caller's."""
        self._draining = True
        if self._visits:
            await asyncio.wait(self._visits)

    async def close(self) -> None:
        """Break off what is left. Its leases run out, and it is sent again: whether it has arrived nobody knows."""
        self._draining = True
        for visit in self._visits:
            visit.cancel()
        if self._visits:
            await asyncio.wait(self._visits)

    # ---- who is visited ----------------------------------------------------------------------------------------

    async def _look(self, kind: Kind) -> None:
        room, unproven = self._room(kind, proven=True), self._room(kind, proven=False)
        if room <= 0:
            return
        # What is due is in nobody's hand, so whoever is there already does not do for it: a letter may hang. Those who
        # take no further visit would only crowd out others.
        full = [
            domain for domain, of in self._visited if of is kind and not self._destinations.open(self._name(domain))
        ]
        names = await queue.due(
            self._store,
            kind,
            _DOMAINS_AT_ONCE,
            but=full,
            of=None if unproven > 0 else self._destinations.living(),
        )
        for domain in names:
            self._visit(domain, kind)

    def _visit(self, domain: str, kind: Kind, first: SpoolId | None = None) -> bool:
        """Begin a visit, if the slots and the destination's limits allow one more; False when they do not.

        A destination that is down has room enough: one visit puts off all that is for it.
        """
        name = self._name(domain)
        if self._draining:
            return False
        if self._destinations.down(name) is not None:
            if not self._visited[domain, kind]:
                # Needs no slot: nobody is connected to.
                self._begin(domain, kind, name, slots=0)
            return True
        if not self._destinations.open(name) or self._room(kind, proven=self._destinations.alive(name)) <= 0:
            return False
        self._begin(domain, kind, name, slots=1, first=first)
        return True

    def _name(self, domain: str) -> str:
        return destination(pick(self._rules, "", domain))

    def _room(self, kind: Kind, *, proven: bool) -> int:
        slots = self._slots[kind]
        reserved = slots // 4 if kind is Kind.FRESH and not proven else 0
        return slots - reserved - self._taken[kind]

    def _begin(self, domain: str, kind: Kind, name: str, slots: int, first: SpoolId | None = None) -> None:
        self._taken[kind] += slots
        self._visited[domain, kind] += 1
        self._destinations.enter(name)
        self._in_progress.labels(kind.value).inc()

        def ended(visit: asyncio.Task[None]) -> None:
            self._taken[kind] -= slots
            self._visited[domain, kind] -= 1
            if not self._visited[domain, kind]:
                del self._visited[domain, kind]
            self._destinations.leave(name)
            self._in_progress.labels(kind.value).dec()
            self._visits.discard(visit)
            self._wake.set()

        visit = asyncio.create_task(self._stay(domain, kind, name, first), name=f"relay {domain}")
        self._visits.add(visit)
        visit.add_done_callback(ended)

    # ---- a visit -----------------------------------------------------------------------------------------------

    async def _stay(self, domain: str, kind: Kind, name: str, first: SpoolId | None) -> None:
        letters = 1
        try:
            if first is not None:
                claims = await self._leases.claim_one(first, domain)
                await self._send(claims, name)
                if domain not in self._behind and not _left_over(claims):
                    return
            while not self._draining:
                if (down := self._destinations.down(name)) is not None:
                    more = await self._put_off(domain, kind, down)
                else:
                    more = await self._work(domain, kind, name, letters)
                if not more:
                    return
                letters = min(2 * letters, _LETTERS_AT_ONCE)
        except StoreUnavailable as error:
            self._log.warning("visit broken off", domain=domain, reason=str(error))
        except Exception as error:
            # The leases of what it had in hand run out, and the next visit has them.
            self._log.error("visit failed", domain=domain, exc_info=error)

    async def _work(self, domain: str, kind: Kind, name: str, letters: int) -> bool:
        """Lease some and have them carried; False when there is nothing to be done any more."""
        if not self._destinations.may_send(name):
            return False
        claims = await self._leases.claim(domain, kind, letters)
        more = len(claims) == letters or _left_over(claims)
        if more:
            self._visit(domain, kind)  # there may be more than one visit can do
        elif kind is Kind.FRESH:
            self._behind.discard(domain)
        return (await self._send(claims, name) and more) or self._destinations.down(name) is not None

    async def _send(self, claims: Sequence[Claim], name: str) -> bool:
        """Have them carried; False when some had to be given back."""
        try:
            for at, claim in enumerate(claims):
                down = self._destinations.down(name) is not None
                if self._draining or down or not self._destinations.may_send(name):
                    await self._leases.give_back(claims[at:])
                    return False
                await self._attempts.make(claim, self._rules, name)
                self._leases.settled([claim])
        finally:
            self._leases.settled(claims)  # what an error left unsettled: its lease may run out
        return True

    async def _put_off(self, domain: str, kind: Kind, down: Down) -> bool:
        """Let all of the domain wait, most of them by one statement; False when that is done."""
        reply, host = said(down.outcome), down.outcome.host
        warn_s = self._settings.warn_after_s
        done = await queue.put_off(
            self._store, domain, kind, wait_s=down.wait_s, warn_after_s=warn_s, reply=reply, host=host
        )
        if not done.told:
            return done.more
        # Who is left is to be warned, or given up.
        claims = await self._leases.claim(domain, kind, _NOTICES_AT_ONCE)
        try:
            for claim in claims:
                await self._attempts.without(claim, down.outcome)
                self._leases.settled([claim])
        finally:
            self._leases.settled(claims)
        return done.more or bool(claims)

    # ---- what is heard -----------------------------------------------------------------------------------------

    def _hear(self, hint: RelayDestination) -> None:
        if hint.pod == self._pod:
            return
        if hint.wait_ms:
            outcome = Outcome(Fate.LATER, hint.code, hint.enhanced, hint.text, hint.host, unreachable=True)
            self._destinations.fell(hint.destination, hint.failures, hint.wait_ms / 1000, outcome)
        else:
            self._destinations.forgive(hint.destination)
            if hint.destination:  # who means a domain means what stands in its way
                self._destinations.forgive(destination(pick(self._rules, "", hint.destination)))
            self._wake.set()

    def _rules_changed(self, _hint: DirectoryChanged) -> None:
        self._rules_old = True
        self._wake.set()

    async def _read_rules(self) -> None:
        self._rules_old = False
        async with self._store.query("relay.rules") as conn:
            kept = await rules_kept.every(conn)
        if kept != self._kept:
            self._kept, self._rules = kept, table(map(self._opened, kept))

    def _opened(self, rule: Rule) -> Rule:
        kept = rule.password or ""
        try:
            plain = self._seal.open(kept)
        except Unopened as error:
            self._log.error("the password of a smarthost cannot be opened", host=rule.host, reason=str(error))
            return rule._replace(password=None)
        if kept and plain == kept:
            self._log.warning("the password of a smarthost lies in the clear: posta route seal", host=rule.host)
        return rule._replace(password=plain)

    async def _measure(self) -> None:
        depths = {depth.state: depth for depth in await queue.depth(self._store)}
        for state in _STATES:
            depth = depths.get(state)
            self._recipients.labels(state).set(depth.recipients if depth else 0)
            self._oldest.labels(state).set(depth.oldest_s if depth else 0.0)


def _left_over(claims: Sequence[Claim]) -> bool:
    """Whether one of them has more recipients than are leased at once."""
    return any(len(claim.recipients) >= RECIPIENTS_AT_ONCE for claim in claims)
