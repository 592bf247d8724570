"""The way in that both doors and our own DSNs share: stage the octets, accept the message, see that it moves on.

Concurrent stages of a process share one statement, concurrent accepts one commit: while a group is on its way to the
disk the next one gathers, so the more arrives at once the less each message costs, and nobody waits for a timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from services.contracts.v1.mail_pb2 import Envelope, Ticket
from services.core.bus import Bus, work_local, work_remote
from services.core.directory import Local, Remote
from services.core.group import Group
from services.core.ids import BlobId, SpoolId
from services.core.store import blobs, quarantine, retention, spool
from services.core.store.engine import Store, StoreUnavailable
from services.core.telemetry import Logger

TICKET_LOST_S = 20.0  # a recipient not served by then has its ticket published again
_TIDY_EVERY_S = 600.0


def routed(
    target: Local | Remote, notify: str | None = None, orcpt: str | None = None, forwarded_by: str | None = None
) -> spool.Recipient:
    """One place that the directory named, as the spool keeps it.

    `forwarded_by`: the domain of ours whose address led there, where the sender named another than the target.
    """
    match target:
        case Local(account_id=account_id, address=address):
            return spool.Recipient(address, account_id, notify, orcpt)
        case Remote(address=remote):
            return spool.Recipient(str(remote), None, notify, orcpt, forwarded_by)


class Spool:
    """Stage and accept; one per process."""

    def __init__(
        self,
        store: Store,
        bus: Bus,
        log: Logger,
        *,
        group_size: int = 64,
        synchronous: bool = False,
        keep_days: int = 30,
    ) -> None:
        """`keep_days`: how long what is held for review is kept."""
        self._store, self._bus, self._log = store, bus, log
        self._synchronous, self._keep_days = synchronous, keep_days
        self._stages: Group[tuple[BlobId, bytes], None] = Group(self._stage, group_size, 8 << 20)
        self._accepts: Group[spool.Entry, None] = Group(self._accept, group_size, 8 << 20)

    async def stage(self, name: BlobId, octets: bytes) -> None:
        """Keep the octets so that filter and delivery can read them; raises `StoreUnavailable`."""
        await self._stages.put((name, octets), len(octets))

    async def accept(self, entry: spool.Entry) -> None:
        """Commit the message: from the return on it is ours to deliver or to bounce. Raises `StoreUnavailable`.

        If cancelled, the message may or may not have been kept, as after any lost reply (RFC 1047).
        """
        await self._accepts.put(entry, len(entry.prefix))
        self.publish(entry)

    async def held_policies(self, domains: Collection[str]) -> dict[str, quarantine.Policy]:
        """What each of these domains of ours does about held mail; raises `StoreUnavailable`."""
        return await quarantine.policies(self._store, list(domains))

    async def hold(self, held: quarantine.Held) -> None:
        """Commit the message to quarantine: nothing moves until somebody says so. Raises `StoreUnavailable`."""
        await quarantine.hold(self._store, held, self._keep_days)

    def publish(self, entry: spool.Entry) -> None:
        """Tell delivery and relay that a committed entry waits for them."""
        self._publish(
            entry.spool_id,
            entry.traceparent,
            local=any(r.account_id is not None for r in entry.recipients),
            remote=any(r.account_id is None for r in entry.recipients),
        )

    async def sweep_forever(self, every_s: float) -> None:
        """Publish the tickets of what delivery has left undone, and tidy up; any number of processes may do so at once.

        Recipients of other domains are left to the relay, which asks the store itself: there may be any number of them
        waiting, and they are not to stand in front of mailboxes.
        """
        since_tidy = _TIDY_EVERY_S
        unnamed: list[BlobId] = []
        while True:
            try:
                async with self._store.begin("spool.sweep") as conn:
                    due = await spool.sweep(conn, wait_s=TICKET_LOST_S)
                for spool_id in due:
                    self._publish(spool_id, "", local=True, remote=False)
                if due:
                    self._log.info("tickets published again", entries=len(due))
                if since_tidy >= _TIDY_EVERY_S:
                    async with self._store.begin("spool.tidy") as conn:
                        await spool.tidy(conn)
                    await retention.forget(self._store)
                    await blobs.sweep(self._store, unnamed)
                    unnamed = await blobs.unnamed(self._store)
                    since_tidy = 0.0
            except StoreUnavailable as error:
                self._log.warning("sweep put off", reason=str(error))
            await asyncio.sleep(every_s)
            since_tidy += every_s

    def _publish(self, spool_id: SpoolId, traceparent: str, *, local: bool, remote: bool) -> None:
        ticket = Ticket(envelope=Envelope(spool_id=spool_id, traceparent=traceparent))
        for wanted, subject in ((local, work_local()), (remote, work_remote())):
            if wanted:
                # Not waited for: the stream catches it, or the sweeper finds the rows.
                self._bus.publish_hint(subject, ticket)

    async def _stage(self, contents: list[tuple[BlobId, bytes]]) -> Sequence[None]:
        await blobs.stage_named(self._store, contents, synchronous=self._synchronous)
        return [None] * len(contents)

    async def _accept(self, entries: list[spool.Entry]) -> Sequence[None]:
        await spool.insert(self._store, entries, TICKET_LOST_S)
        return [None] * len(entries)
