"""Wall clocks that are set by hours and days, of services and of Postgres, while mail is on its way."""

from __future__ import annotations

import asyncio
import random
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP as Server
from aiosmtpd.smtp import Envelope, Session

from tests.flow.clients import arrived, inbox, letter, message_id, submit
from tests.flow.faults.world import FAR, left

FAR_OFFSET = 98
HOUR, DAY = 3600, 86_400
LEASE_S = 12
_COLUMNS = """
SELECT table_name, column_name FROM information_schema.columns
WHERE table_schema = 'public' AND data_type = 'timestamp with time zone' AND is_generated = 'NEVER'
"""


class Busy:
    """The MX host of far.test: says 451 to what it has never seen, and may keep clients waiting."""

    def __init__(self, port: int) -> None:
        self.taken: Counter[str] = Counter()
        self.begun: Counter[str] = Counter()
        self.answers = threading.Event()
        self.answers.set()
        self.first_is_refused = True
        self._seen: set[str] = set()
        self._controller = Controller(self, hostname="127.0.0.1", port=port, ready_timeout=10)

    def __enter__(self) -> Busy:
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.answers.set()
        self._controller.stop()

    async def handle_DATA(self, server: Server, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        name = message_id(envelope.content)
        self.begun[name] += 1
        await asyncio.to_thread(self.answers.wait)
        if self.first_is_refused and name not in self._seen:
            self._seen.add(name)
            return "451 4.7.1 greylisted, come back"
        self.taken[name] += 1
        return "250 2.0.0 mine now"


@pytest.fixture(scope="module")
def clocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the services' clocks."""
    return tmp_path_factory.mktemp("clocks")


@pytest.fixture(scope="module")
def world(new_platform: Callable[..., Any], clocks: Path) -> Any:
    platform = new_platform(
        {
            "POSTA_SPOOL_SWEEP_S": "1",
            "POSTA_RELAY_LEASE_S": str(LEASE_S),
            "POSTA_RELAY_POLL_S": "1",
            "POSTA_SCAN_DEADLINE_S": "10",
            "PYTHONPATH": str(Path(__file__).parent / "clocks"),
            "TEST_CLOCKS": str(clocks),
        }
    )
    platform.env["POSTA_RELAY_PORT"] = str(platform.base + FAR_OFFSET)
    zones = platform.home / "zones"
    zones.mkdir(parents=True)
    (zones / f"{FAR}.zone").write_text(f"$ORIGIN {FAR}.\n@ 60 IN MX 10 mx.{FAR}.\nmx 60 IN A 127.0.0.1\n")
    platform.posta("up", "--detach", "--without", "imap,sync")
    platform.state = platform.status()
    return platform


@pytest.fixture
def far(world: Any) -> Iterator[Busy]:
    with Busy(world.base + FAR_OFFSET) as far:
        yield far


def set_forward(platform: Any, seconds: int) -> None:
    """Postgres's clock jumps by so much: all that was written down lies that much further back."""

    async def work() -> None:
        conn = await asyncpg.connect(platform.database_url)
        async with conn.transaction():
            for table, column in await conn.fetch(_COLUMNS):
                await conn.execute(f"UPDATE {table} SET {column} = {column} - make_interval(secs => {seconds})")
        await conn.close()

    asyncio.run(work())


def value(platform: Any, sql: str) -> Any:
    async def work() -> Any:
        conn = await asyncpg.connect(platform.database_url)
        try:
            return await conn.fetchval(sql)
        finally:
            await conn.close()

    return asyncio.run(work())


def hurried(platform: Any) -> bool:
    """Whether nothing is on its way; what waits for its next attempt is told not to."""
    if left(platform):
        platform.posta("queue", "retry", "--domain", FAR)
        return False
    return True


@pytest.mark.timeout(300)
def test_services_whose_clocks_are_set_lose_and_double_nothing(world: Any, far: Busy, clocks: Path) -> None:
    dice = random.Random(20261125)
    writer, reader = world.add_user(), world.add_user()
    sent = []
    for _ in range(12):
        for name in ("submission", "mxrouter", "filter", "delivery"):
            (clocks / name).write_text(str(dice.choice((-9 * DAY, -5 * HOUR, 0, 5 * HOUR, 9 * DAY))))
        message = letter(writer.address, reader.address)
        code, said = submit(world, writer, [reader.address, f"ann@{FAR}"], message)
        assert code == 250, said
        sent.append(message_id(message))
    (clocks / "mxrouter").write_text(str(9 * DAY))  # past the five days after which the queue gives up

    world.eventually("nothing is on its way", lambda: hurried(world), 120)

    assert Counter(message_id(each) for each in inbox(world, reader)) == Counter(sent)
    assert far.taken == Counter(sent)
    assert inbox(world, writer) == [], "a notice about what was only put off"
    for name in ("submission", "mxrouter", "filter", "delivery"):
        (clocks / name).unlink()


@pytest.mark.timeout(200)
@pytest.mark.parametrize("seconds", [2 * DAY, -2 * DAY])
def test_what_is_just_being_sent_is_sent_once(world: Any, far: Busy, seconds: int) -> None:
    writer = world.add_user()
    far.first_is_refused = False
    far.answers.clear()
    message = letter(writer.address, f"ann@{FAR}")
    submit(world, writer, f"ann@{FAR}", message)
    world.eventually("it is on its way", lambda: far.begun[message_id(message)])

    set_forward(world, seconds)

    # Two renewals later whoever looks for dead leases has looked as well.
    for _ in range(2):
        due = value(world, "SELECT max(due_at) FROM spool_recipients WHERE leased_by IS NOT NULL")
        sql = (
            f"SELECT leased_by IS NOT NULL AND due_at <> '{due}' AND due_at BETWEEN now() AND now() + interval '1 min'"
        )
        world.eventually("it is renewed", lambda sql=sql: value(world, f"{sql} FROM spool_recipients"))
    assert far.begun == Counter({message_id(message): 1})
    far.answers.set()
    world.eventually("it has left", lambda: left(world) == 0, 30)
    assert far.taken == Counter({message_id(message): 1})


@pytest.mark.timeout(200)
def test_what_a_killed_relay_had_in_hand_does_not_wait_for_the_old_time(world: Any, far: Busy) -> None:
    writer = world.add_user()
    far.first_is_refused = False
    far.answers.clear()
    message = letter(writer.address, f"ann@{FAR}")
    submit(world, writer, f"ann@{FAR}", message)
    world.eventually("it is on its way", lambda: far.begun[message_id(message)])
    world.kill("mxrouter")
    set_forward(world, -2 * DAY)

    far.answers.set()

    world.eventually("it has left", lambda: left(world) == 0, 90)
    # RFC 1047: the first attempt was cut between the message and its answer.
    assert 1 <= far.taken[message_id(message)] <= 2


@pytest.mark.timeout(200)
def test_what_lost_its_ticket_does_not_wait_for_the_old_time(world: Any) -> None:
    reader = world.add_user()
    world.stop("delivery")
    message = letter(reader.address, reader.address)
    submit(world, reader, reader.address, message)
    world.stop("nats")
    shutil.rmtree(world.home / "nats" / "jetstream")
    set_forward(world, -2 * DAY)

    world.start("nats")
    world.start("delivery")

    assert arrived(world, reader, message_id(message), timeout_s=60).endswith(message)
    assert len(inbox(world, reader)) == 1
