"""Who is to be woken: one bus subscription per live account of this process, fanned out to its sessions.

Invariants
- A wake-up carries no content. Who is woken asks the store for what is above its own number, so a hint that is lost,
  doubled or late does no harm, and a slow client costs one flag, not a queue.
- Changes made in this process wake its own sessions at once; the bus tells the other processes.
- What no hint told is found by one query for all live accounts every ten seconds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from services.contracts.v1.mail_pb2 import Changed
from services.core import subjects
from services.core.ids import AccountId, Fid
from services.core.spans import OFF, Facts, Spans
from services.core.store.engine import Store, StoreUnavailable
from services.core.telemetry import Logger
from services.imap import queries

LOOK_S = 10.0


class Interest(Protocol):
    """A subscription that can be given up."""

    async def unsubscribe(self) -> None:
        """Take no further messages."""


class HintBus(Protocol):
    """What the notifier asks of the bus."""

    def publish_hint(self, subject: str, message: Changed) -> bool:
        """Tell whoever listens; never raises."""

    async def subscribe_hint(
        self, subject: str, cls: type[Changed], handler: Callable[[Changed], Awaitable[None] | None]
    ) -> Interest:
        """Call `handler` with every message on `subject`."""


class Watch:
    """One session's ear: `wake` is called, in the event loop, when something may have happened where it looks."""

    __slots__ = ("_heard", "_notifier", "account_id", "fid", "wake")

    def __init__(self, notifier: Notifier, account_id: AccountId, wake: Callable[[], None]) -> None:
        self._notifier, self.account_id, self.wake = notifier, account_id, wake
        self.fid: Fid | None = None  # the folder it looks at
        self._heard: tuple[str, int] | None = None  # the trace of the hint that woke it last, and when that was

    def pushed(self, responses: int) -> None:
        """The client has so many responses more, or (0) knows all there was: what follows is about later hints."""
        if (heard := self._heard) is not None:
            self._heard = None
            if responses:
                facts: Facts = {"posta.account": self.account_id, "imap.responses": responses}
                self._notifier._spans.step(heard[0], "imap push", heard[1], facts)

    async def close(self) -> None:
        """Listen no more. Safe to call twice."""
        await self._notifier._leave(self)


class _Live:
    """An account with sessions in this process."""

    __slots__ = ("interest", "looked", "own", "watches")

    def __init__(self) -> None:
        self.watches: set[Watch] = set()
        self.interest: Interest | None = None
        self.looked = 0  # the account's number at the last look
        self.own: deque[int] = deque(maxlen=32)  # numbers of hints that will come back to us from the bus


class Notifier:
    """Hints in and out, for all sessions of this process."""

    def __init__(self, bus: HintBus, store: Store, log: Logger, spans: Spans = OFF) -> None:
        self._bus, self._store, self._log, self._spans = bus, store, log, spans
        self._live: dict[AccountId, _Live] = {}

    async def watch(self, account_id: AccountId, wake: Callable[[], None]) -> Watch:
        """Call `wake` from now on when something changed in the account; `Watch.fid` narrows it to a folder."""
        live = self._live.get(account_id)
        watch = Watch(self, account_id, wake)
        if live is not None:
            live.watches.add(watch)
            return watch
        live = self._live[account_id] = _Live()
        live.watches.add(watch)
        interest = await self._bus.subscribe_hint(subjects.changed(account_id), Changed, self._hear)
        if live.watches:
            live.interest = interest
        else:  # everybody left while we subscribed
            await interest.unsubscribe()
        return watch

    def tell(self, account_id: AccountId, fid: Fid, cn: int, *, but: Watch | None = None) -> None:
        """Say that folder `fid` (0: the folder list) of the account has moved to `cn`. `but` made the change itself."""
        if not cn:
            return
        if (live := self._live.get(account_id)) is not None:
            live.own.append(cn)
            self._wake(live, fid, but)
        self._bus.publish_hint(subjects.changed(account_id), Changed(account_id=account_id, fid=fid, cn=cn))

    async def look(self) -> None:
        """Ask the store once for all live accounts, and wake those that moved without a hint."""
        if not self._live:
            return
        for account_id, cn in (await queries.last_cns(self._store, list(self._live))).items():
            live = self._live.get(account_id)
            if live is not None and cn > live.looked:
                live.looked = cn
                self._wake(live, None, None)

    async def run(self) -> None:
        """Look every ten seconds, for ever. A store that is away is asked again at the next look."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except StoreUnavailable as error:
                self._log.warning("cannot look for changes", reason=str(error))

    def _hear(self, changed: Changed) -> None:
        live = self._live.get(AccountId(changed.account_id))
        if live is not None and changed.cn not in live.own:
            heard = (changed.envelope.traceparent, self._spans.now()) if self._spans.on else None
            self._wake(live, Fid(changed.fid), None, heard)

    def _wake(self, live: _Live, fid: Fid | None, but: Watch | None, heard: tuple[str, int] | None = None) -> None:
        for watch in live.watches:
            if watch is not but and (fid is None or watch.fid == fid):
                watch._heard = heard
                watch.wake()

    async def _leave(self, watch: Watch) -> None:
        live = self._live.get(watch.account_id)
        if live is None or watch not in live.watches:
            return
        live.watches.discard(watch)
        if not live.watches:
            del self._live[watch.account_id]
            if live.interest is not None:
                await live.interest.unsubscribe()
