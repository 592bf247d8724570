"""A queue full of mail for hosts that are dead, and whether anybody else notices.

The queue is filled through `core/spool`, as the doors fill it: the same blobs, rows, commits and tickets. Nine domains
in ten refuse connections, the others let a client wait until it gives up. What is live is measured three times: with an
empty queue, while the dead hosts have their first attempts, and when all of theirs wait for the next ones.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import cpu
from bench.measured import drive, note
from bench.relay import once
from bench.sides import DOMAIN, Ours, user
from bench.sink import Sink, sink
from services.core.bus import Bus
from services.core.ids import AccountId, new_spool_id
from services.core.spool import Spool
from services.core.store import accounts
from services.core.store.blobs import blob_id
from services.core.store.engine import Store
from services.core.store.spool import Entry, Recipient
from services.core.telemetry import logger
from services.mxrouter.queue import depth

LIVE, REFUSED, SILENT = "live.test", "refused.test", "silent.test"
_HOSTS = {LIVE: "127.0.0.1", REFUSED: "127.9.0.1", SILENT: "127.9.0.2"}
_DOMAINS = 2000
_RECIPIENTS = 5  # of one message
_LONGEST_S = 300
EMPTY, ATTEMPTED, WAITING = "empty queue", "first attempts", "all waiting"


def zones(folder: Path) -> None:
    """Let the test DNS know where the domains of this comparison have their mail hosts."""
    folder.mkdir(parents=True, exist_ok=True)
    for origin, address in _HOSTS.items():
        (folder / f"{origin}.zone").write_text(f"$TTL 60\n* IN MX 10 mx\nmx IN A {address}\n")


@contextmanager
def silence(port: int) -> Iterator[None]:
    """A host at which connections are not answered: nobody takes what the kernel has taken, and its line is full."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind((_HOSTS[SILENT], port))
        full.listen(0)
        for _ in range(4):
            waits = stack.enter_context(socket.socket())
            waits.setblocking(False)
            waits.connect_ex((_HOSTS[SILENT], port))
        yield


def measure(results: Path, side: Ours, port: int, recipients: int, scale: str) -> None:
    """Before, during and after the first attempts. `port`: where the platform relays to."""
    asyncio.run(_measure(results, side, port, recipients, scale))


async def _measure(results: Path, side: Ours, port: int, recipients: int, scale: str) -> None:
    with silence(port):
        async with sink(port) as there:
            await once(results, side, there, 300, [f"d0.{LIVE}"])  # whatever is slow the first time
            await asyncio.to_thread(results.unlink)
            await _live(results, side, there, EMPTY, scale)
            began = time.perf_counter()
            await fill(side, recipients)
            note(results, ATTEMPTED, "queue", "filled", recipients / (time.perf_counter() - began), "recipients/s")
            await _live(results, side, there, ATTEMPTED, scale)
            await _first_attempts(results, side, began)
            await _live(results, side, there, WAITING, scale)
            await _depth(results, side, WAITING)


async def _live(results: Path, side: Ours, there: Sink, phase: str, scale: str) -> None:
    """What users and other servers see of it; the phase stands where a side's name does."""
    now = side.called(phase)
    number = 1000 if scale == "full" else 200
    for run in range(3):
        await once(results, now, there, number, [f"d{run}{n}.{LIVE}" for n in range(20)])
    await asyncio.to_thread(drive, results, [now], "--tests", "smtp,idle", "--scale", scale, "--quiet", "0")
    used, began = cpu.seconds(side), time.perf_counter()
    await asyncio.sleep(10)
    share = (cpu.seconds(side) - used) / (time.perf_counter() - began)
    note(results, phase, "at rest", "cores", share, "cores")
    await _depth(results, side, phase)


async def fill(side: Ours, recipients: int) -> None:
    """So many recipients at dead hosts, a few a message."""
    store, log = Store(side.url("database")), logger("bench")
    bus = await Bus.connect(side.url("nats"), "bench")
    spool = Spool(store, bus, log)
    async with store.query("bench.sender") as conn:
        sender = (await accounts.get(conn, user(1))).account_id
    chance, left = random.Random(1), iter(range(recipients // _RECIPIENTS))

    async def hand_in() -> None:
        for n in left:
            await _accept(spool, sender, n, [chance.randrange(_DOMAINS) for _ in range(_RECIPIENTS)])

    await asyncio.gather(*(hand_in() for _ in range(64)))
    await bus.drain(5)
    await bus.close()
    await store.close()


async def _accept(spool: Spool, sender: AccountId, number: int, domains: list[int]) -> None:
    names = [f"d{n}.{SILENT if n % 10 == 0 else REFUSED}" for n in domains]
    head = f"From: <{user(1)}>\r\nSubject: message {number}\r\nMessage-ID: <{number}.dead@{DOMAIN}>\r\n\r\n".encode()
    octets = head + b"the quick brown fox jumps over the lazy dog while the band plays on\r\n" * 28
    entry = Entry(
        spool_id=new_spool_id(),
        blob_id=blob_id(octets),
        prefix=b"Received: from bench by localhost with ESMTPSA;\r\n Tue, 25 Nov 2026 12:00:00 +0000\r\n",
        size=len(octets),
        sender=user(1),
        sender_account_id=sender,
        door="submission",
        client="127.0.0.1",
        junk=False,
        recipients=tuple(Recipient(f"r{number}.{n}@{name}", None) for n, name in enumerate(names)),
    )
    await spool.stage(entry.blob_id, octets)
    await spool.accept(entry)


async def _first_attempts(results: Path, side: Ours, began: float) -> None:
    """Wait until everybody has had one."""
    for _ in range(_LONGEST_S // 2):
        if "fresh" not in await _states(side):
            break
        await asyncio.sleep(2)
    note(results, ATTEMPTED, "queue", "first attempts took", time.perf_counter() - began, "s")


async def _depth(results: Path, side: Ours, phase: str) -> None:
    for state, recipients in (await _states(side)).items():
        note(results, phase, "queue", state, recipients, "recipients")


async def _states(side: Ours) -> dict[str, int]:
    store = Store(side.url("database"))
    try:
        return {each.state: each.recipients for each in await depth(store)}
    finally:
        await store.close()
