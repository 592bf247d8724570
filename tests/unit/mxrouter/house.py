"""Messages for elsewhere in a real store, and looks at what has become of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from inspect import isawaitable
from time import monotonic
from typing import Any

from sqlalchemy import text

from services.core.bus import Bus
from services.core.directory import Directory
from services.core.ids import SpoolId, new_spool_id
from services.core.notices import Notices
from services.core.ownmail import OwnMail
from services.core.seal import Seal
from services.core.settings import Relay as Settings
from services.core.spans import OFF, Spans
from services.core.spool import Spool
from services.core.store import accounts, blobs, spool
from services.core.store.engine import Store
from services.core.telemetry import Metrics, logger
from services.mxrouter.attempt import Attempts
from services.mxrouter.carriage import Fate, Letter, Outcome, Route
from services.mxrouter.destinations import Destinations
from services.mxrouter.hold import Hold
from services.mxrouter.keyring import Keyring
from services.mxrouter.leases import Leases
from services.mxrouter.outgoing import Finisher
from services.mxrouter.relay import Relay
from services.mxrouter.schedule import Patience
from services.mxrouter.settler import Settler

SENT = Outcome(Fate.SENT, 250, "2.0.0", "Queued", "mx.far.test", relayed_dsn=True)
LATER = Outcome(Fate.LATER, 450, "4.2.0", "Greylisted", "mx.far.test")
FAILED = Outcome(Fate.FAILED, 550, "5.1.1", "No such user", "mx.far.test")
DEAD = Outcome(Fate.LATER, 451, "4.4.1", "No answer from anybody", unreachable=True)


async def until(holds: Callable[[], Any | Awaitable[Any]]) -> Any:
    """The first true value of `holds()`; the test's own timeout bounds it."""
    while True:
        found = holds()
        if value := await found if isawaitable(found) else found:
            return value
        await asyncio.sleep(0.01)


class Script:
    """A carrier that says what the test wants: by address, else by domain, else that all is well."""

    def __init__(self) -> None:
        self.says: dict[str, Outcome] = {}
        self.hangs: dict[str, asyncio.Event] = {}
        self.carried: list[tuple[Route, Letter]] = []
        self.at_once: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    async def carry(self, route: Route, letter: Letter) -> list[Outcome]:
        self.carried.append((route, letter))
        domain = route.domain
        self.at_once[domain] += 1
        self.most[domain] = max(self.most[domain], self.at_once[domain])
        try:
            if domain in self.hangs:
                await self.hangs[domain].wait()
        finally:
            self.at_once[domain] -= 1
        return [self.says.get(a.address, self.says.get(domain, SENT)) for a in letter.addressees]

    def to(self, domain: str) -> list[list[str]]:
        """Who was carried to, letter by letter."""
        return [[a.address for a in letter.addressees] for route, letter in self.carried if route.domain == domain]


class House:
    """A store, as its tests see it."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def accept(
        self, *recipients: str | spool.Recipient, sender: str = "alice@posta.test", **more: Any
    ) -> SpoolId:
        """One message as a door accepts it, for recipients of other domains."""
        spool_id = new_spool_id()
        octets = f"Subject: {spool_id}\r\nFrom: {sender}\r\nX-Long: {'x' * 200}\r\n\r\nhello\r\n".encode()
        [blob] = await blobs.stage(self.store, [octets])
        prefix = b"Received: from somewhere\r\n"
        entry = spool.Entry(
            spool_id=spool_id,
            blob_id=blob,
            prefix=prefix,
            size=len(prefix + octets),
            sender=sender,
            sender_account_id=None,
            door="submission",
            client="192.0.2.1",
            junk=False,
            recipients=tuple(r if isinstance(r, spool.Recipient) else spool.Recipient(r, None) for r in recipients),
        )
        await spool.insert(self.store, [entry._replace(**more)], 20)
        return spool_id

    async def rows(self, sql: str, **values: object) -> Sequence[Any]:
        """What a statement finds."""
        async with self.store.begin("test") as conn:
            found = await conn.execute(text(sql), values)
            return found.all() if found.returns_rows else []

    async def all_put_off(self, count: int) -> bool:
        """Whether so many recipients wait, and all of them for another attempt."""
        return await self.recipients("attempts > 0 AND due_at > now() AND leased_by IS NULL") == [True] * count

    async def recipients(self, columns: str = "address") -> list[Any]:
        """The queue, in order."""
        rows = await self.rows(f"SELECT {columns} FROM spool_recipients WHERE account_id IS NULL ORDER BY spool_id, n")
        return [row[0] if len(row) == 1 else tuple(row) for row in rows]

    async def jump(self, days: float) -> None:
        """The store's clock is set forward by so many days: all that is written down lies that much further back."""
        for table, columns in (("spool", "received_at"), ("spool_recipients", "due_at notice_at")):
            back = ", ".join(f"{name} = {name} - make_interval(secs => :s)" for name in columns.split())
            await self.rows(f"UPDATE {table} SET {back}", s=days * 86400)

    async def age(self, hours: float) -> None:
        """Everything queued is that much older, and due."""
        await self.rows("UPDATE spool SET received_at = received_at - make_interval(secs => :s)", s=hours * 3600)
        await self.rows(
            "UPDATE spool_recipients SET due_at = now() - interval '1 second',"
            " notice_at = notice_at - make_interval(secs => :s)",
            s=hours * 3600,
        )

    async def notices(self) -> list[str]:
        """The DSNs in the spool, as text."""
        rows = await self.rows(
            "SELECT b.content FROM spool s JOIN blobs b USING (blob_id) WHERE s.sender = '' AND s.door = 'posta'"
            " ORDER BY s.spool_id"
        )
        return [bytes(row[0]).decode() for row in rows]

    async def alice(self) -> None:
        """Somebody who writes, and can be told."""
        async with self.store.begin("test") as conn:
            await accounts.create_domain(conn, "posta.test")
            await accounts.create(conn, "alice@posta.test")


@asynccontextmanager
async def relaying(
    house: House,
    bus: Bus,
    carrier: Script,
    *,
    pod: str = "pod",
    lease_s: float = 60,
    seal: Seal | None = None,
    spans: Spans = OFF,
    **settings: Any,
) -> AsyncIterator[Relay]:
    """A relay as a pod has it, which looks at the queue all the time."""
    store, log, metrics = house.store, logger("test"), Metrics("test")
    wanted = Settings(**{"poll_s": 0.05, **settings})
    directory = Directory(store, bus)
    await directory.start()
    destinations = Destinations(
        monotonic, lambda limit: limit, connections=wanted.connections, per_minute=wanted.per_minute
    )
    settler = Settler(
        store, bus, Notices(OwnMail(Spool(store, bus, log), directory), "mx.posta.test"), log, metrics,
        pod=pod, host="mx.posta.test", patience=Patience(timedelta(hours=4), timedelta(days=5)), chance=lambda: 0.0,
    )  # fmt: skip
    keyring = Keyring(store, bus, None, None)
    await keyring.start()
    finisher = Finisher(keyring, directory, "mx.posta.test")
    hold = Hold(wanted.memory)
    attempts = Attempts(
        store, bus, carrier, finisher, settler, destinations, hold, log, pod=pod, chance=lambda: 0.0, spans=spans
    )
    leases = Leases(store, pod, lease_s, log)
    relay = Relay(store, bus, leases, attempts, destinations, wanted, seal or Seal(None), log, metrics, pod=pod)
    await relay.start()
    forever = (relay.run_forever(), leases.renew_forever(), leases.free_forever())
    tasks = [asyncio.create_task(each) for each in forever]
    try:
        yield relay
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await relay.close()
