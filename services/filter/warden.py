"""Looks after held mail: recipients get their digests, senders their notices, and what nobody wants expires.

Every filter runs one. Each step claims what it acts on where it keeps what it did, so that any number of them, and one
that dies half-way, tell nobody twice and forget nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from services.core import dsn
from services.core.bus import Bus
from services.core.ids import new_spool_id
from services.core.notices import Notices
from services.core.ownmail import OwnMail
from services.core.passes import token
from services.core.review import event
from services.core.settings import Settings
from services.core.spool import TICKET_LOST_S
from services.core.store import blobs
from services.core.store import quarantine_upkeep as upkeep
from services.core.store.engine import Store, StoreUnavailable
from services.core.store.quarantine_upkeep import Owed, Untold
from services.core.store.spool import Entry
from services.core.telemetry import Logger, Metrics
from services.filter import digest

_KINDS = ("virus", "spam", "policy")


class Warden:
    """One per process."""

    def __init__(
        self, store: Store, bus: Bus, mail: OwnMail, settings: Settings, log: Logger, metrics: Metrics
    ) -> None:
        self._store, self._bus, self._mail, self._log = store, bus, mail, log
        self._notices = Notices(mail, settings.hostname)
        self._host, self._days = settings.hostname, settings.quarantine.keep_days
        self._every_s, self._digest_s = settings.quarantine.watch_s, settings.quarantine.digest_s
        self._url = address_of(settings)
        self._held = metrics.gauge("quarantine_messages", "Messages held for review now, by why.", ["kind"])
        self._oldest = metrics.gauge("quarantine_oldest_seconds", "How long the oldest of them has been held.")
        self._told = metrics.counter("quarantine_notices", "Mail about held mail, by whom it is for.", ["reader"])
        self._expired = metrics.counter("quarantine_expired", "Recipients for whom a held message has expired.")

    async def watch_forever(self) -> None:
        """Look again and again; what cannot be done now is done at one of the next looks."""
        while True:
            try:
                await self.look()
            except StoreUnavailable as error:
                self._log.warning("quarantine not looked after", reason=str(error))
            except Exception:
                # A filter goes on giving verdicts, whatever is wrong with what is held.
                self._log.exception("quarantine not looked after")
            await asyncio.sleep(self._every_s)

    async def look(self) -> None:
        """Do everything that is due. Raises `StoreUnavailable`."""
        await self._expire()
        owed = [*await upkeep.just_held(self._store), *await upkeep.ended(self._store)]
        for spool_id, one in groupby(owed, key=lambda each: (each.spool_id, each.state)):
            await self._apart(self._tell_sender(list(one)), spool_id=spool_id[0])
        untold = await upkeep.untold(self._store, self._digest_s)
        for account, items in groupby(untold, key=lambda each: each.account_id):
            await self._apart(self._tell_account(list(items)), account=account)
        await upkeep.forget(self._store)
        await self._count()

    async def _apart(self, work: Coroutine[Any, Any, None], **what: object) -> None:
        """What goes wrong with one message or account is no other's trouble."""
        try:
            await work
        except StoreUnavailable:
            raise
        except Exception:
            self._log.exception("notice about held mail not made", **what)

    async def _expire(self) -> None:
        while gone := await upkeep.expire(self._store):
            self._expired.inc(len(gone))
            for each in gone:
                detail = f"nobody released it within {self._days} days"
                self._bus.publish_trace(event(each, "expired", each.address, detail, service="filter", host=self._host))

    async def _tell_account(self, items: Sequence[Untold]) -> None:
        name, to = new_spool_id(), items[0].to
        octets = digest.compose(digest.Digest(self._host, datetime.now(UTC), f"{name}@{self._host}", items, self._link))
        entry = await self._mail.entry(name, [to], octets, smtputf8=not to.isascii())
        if entry is not None and await upkeep.tell_account(self._store, items, entry, TICKET_LOST_S):
            self._mail.committed(entry)
            self._told.labels("recipient").inc()

    async def _tell_sender(self, owed: Sequence[Owed]) -> None:
        wanted = [each for each in owed if wants_notice(each)]
        entry = await self._notice(wanted) if wanted else None
        if await upkeep.tell_sender(self._store, owed, entry, TICKET_LOST_S) and entry is not None:
            self._mail.committed(entry)
            self._told.labels("sender").inc()

    async def _notice(self, owed: Sequence[Owed]) -> Entry | None:
        octets = await blobs.read(self._store, [owed[0].blob_id])
        original = owed[0].prefix + octets.get(owed[0].blob_id, b"\r\n")
        return await self._notices.about(owed[0], [report(each) for each in owed], original)

    def _link(self, item: Untold) -> str:
        return f"{self._url}/quarantine/{token(item.secret, item.spool_id, item.n)}"

    async def _count(self) -> None:
        counts = await upkeep.census(self._store)
        found = {each.kind: each.messages for each in counts}
        for kind in (*_KINDS, "fault"):
            self._held.labels(kind).set(found.get(kind, 0))
        self._oldest.set(max((each.oldest_s for each in counts), default=0.0))


def address_of(settings: Settings) -> str:
    """Where the sync service is seen from outside, without a slash at the end."""
    if settings.quarantine.url:
        return settings.quarantine.url.rstrip("/")
    port = "" if settings.sync.tls_port in (0, 443) else f":{settings.sync.tls_port}"
    return f"https://{settings.sync.public_hostname or settings.hostname}{port}"


def wants_notice(owed: Owed) -> bool:
    """Whether the sender is to hear of this recipient (RFC 3461 4.1; RFC 5321 6.1: never a null sender)."""
    if not owed.sender:
        return False
    wanted = "DELAY" if owed.state == "held" else "FAILURE"
    return owed.notify is None or wanted in owed.notify.upper().split(",")


def report(owed: Owed) -> dsn.Report:
    """What the sender is told of this recipient."""
    if owed.state == "held":
        words = f"Held for review there, id {owed.spool_id}; until {owed.expires_at:%d %b %Y} it may be released"
        return dsn.Report(owed.address, "delayed", "4.7.1", f"451 4.7.1 {words}", owed.orcpt)
    words = "Held for review and deleted" if owed.state == "deleted" else "Held for review and not released in time"
    return dsn.Report(owed.address, "failed", "5.7.1", f"550 5.7.1 {words}, id {owed.spool_id}", owed.orcpt)
