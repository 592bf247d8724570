"""Mixed mail while anything may be killed at any moment: every 250 ends as one copy for each recipient, or one notice.

`make test` runs it short with a fixed seed, `make soak` long (POSTA_SOAK_KILLS, POSTA_SOAK_SEED).
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.flow.clients import inbox, message_id
from tests.flow.faults.world import FAR, NOBODY, Books, FarServer, Sender, left, reports
from tests.flow.test_kill import streamed

KILLS = int(os.environ.get("POSTA_SOAK_KILLS", "8"))
SEED = int(os.environ.get("POSTA_SOAK_SEED", "20261125"))
LONG = "POSTA_SOAK_KILLS" in os.environ
VICTIMS = ("submission", "mxrouter", "filter", "delivery", "nats", "postgres")
SENDERS = 3
FAR_OFFSET = 99
MESSAGES_BETWEEN = 12
LARGEST = 20_000_000 if LONG else 3_000_000


@pytest.fixture
def soaked(new_platform: Callable[..., Any]) -> Any:
    """A platform that forgives quickly, and whose way out leads to far.test."""
    platform = new_platform(
        {
            "POSTA_SPOOL_SWEEP_S": "1",
            "POSTA_DELIVERY_ACK_WAIT_S": "3",
            "POSTA_SCAN_DEADLINE_S": "10",
            "POSTA_RELAY_LEASE_S": "5",
            "POSTA_RELAY_POLL_S": "1",
            "POSTA_SUBMISSION_RECIPIENTS_PER_HOUR": "0",
            "POSTA_SUBMISSION_RECIPIENTS_PER_DAY": "0",
            "POSTA_SUBMISSION_PAUSE_RECIPIENTS": "0",
        }
    )
    platform.env["POSTA_RELAY_PORT"] = str(platform.base + FAR_OFFSET)
    zones = platform.home / "zones"
    zones.mkdir(parents=True)
    (zones / f"{FAR}.zone").write_text(f"$ORIGIN {FAR}.\n@ 60 IN MX 10 mx.{FAR}.\nmx 60 IN A 127.0.0.1\n")
    platform.posta("up", "--detach")
    platform.state = platform.status()
    return platform


@pytest.mark.timeout(3600 if LONG else 400)
def test_nothing_is_lost(soaked: Any, record_property: Callable[[str, object], None]) -> None:
    dice = random.Random(SEED)
    locals_ = [soaked.add_user() for _ in range(5)]
    writers = [soaked.add_user() for _ in range(SENDERS)]
    books = Books()
    kills: Counter[str] = Counter()
    with FarServer(soaked.base + FAR_OFFSET, SEED) as far:
        senders = [Sender(soaked, books, user, locals_, SEED + n, LARGEST) for n, user in enumerate(writers)]
        for each in senders:
            each.start()
        for _ in range(KILLS):
            enough = len(books.accepted) + dice.randint(1, MESSAGES_BETWEEN)
            soaked.eventually("mail is accepted", lambda enough=enough: len(books.accepted) >= enough, 120)
            victim = dice.choice(VICTIMS)
            soaked.kill(victim)
            kills[victim] += 1
        for each in senders:
            each.stop()
        for name in VICTIMS:
            soaked.until_ready(name, 60)
        soaked.eventually("nothing is on its way", lambda: _hurried(soaked) == 0, 180)
        soaked.eventually("the stream is empty", lambda: asyncio.run(streamed(soaked.nats_url)) == 0, 60)

    record_property("kills", dict(kills))
    record_property("messages", {"accepted": len(books.accepted), "cut": len(books.cut), "relayed": far.taken.total()})
    assert not books.wrong, books.wrong[:5]
    assert books.accepted.keys() | books.cut == books.offered
    _locally_once(soaked, books, locals_)
    _far_away_once(soaked, books, far, kills)


def _hurried(platform: Any) -> int:
    """What is still on its way; what waits for its next attempt is told not to."""
    if waiting := left(platform):
        platform.posta("queue", "retry", "--domain", FAR)
    return waiting


def _locally_once(platform: Any, books: Books, users: list[Any]) -> None:
    for user in users:
        there = Counter(message_id(each) for each in inbox(platform, user))
        due = {name for name, (_, recipients) in books.accepted.items() if user.address in recipients}
        assert due <= there.keys(), f"lost: {due - there.keys()}"
        assert there.keys() <= due | books.cut, "there, and never accepted"
        assert set(there.values()) <= {1}, f"twice: {[name for name, times in there.items() if times > 1]}"


def _far_away_once(platform: Any, books: Books, far: FarServer, kills: Counter[str]) -> None:
    told = {}
    for user in {sender for sender, _ in books.accepted.values()}:
        told |= reports(inbox(platform, user))
    twice = 0
    for name, (_, recipients) in books.accepted.items():
        for address in (each for each in recipients if each.endswith(f"@{FAR}")):
            copies = far.taken[name, address]
            if address == NOBODY:
                assert told.get(name) == {NOBODY}, f"no notice about {name}"
                continue
            assert copies or address in told.get(name, ()), f"lost: {name} to {address}"
            assert not (copies and address in told.get(name, ())), f"arrived and bounced: {name} to {address}"
            twice += copies - 1
    # RFC 1047: a relay that dies between the far server's 250 and its own note sends again. Nothing else may.
    open_moments = kills["mxrouter"] + kills["postgres"]
    assert twice <= open_moments * 4, f"{twice} second copies after {open_moments} kills"
