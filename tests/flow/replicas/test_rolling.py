"""A rolling restart under load, as an upgrade does it: nobody notices more than a goodbye."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from tests.flow.clients import letter, message_id, submit
from tests.flow.conftest import REPO
from tests.flow.replicas.conftest import GRACE_S
from tests.flow.replicas.idlers import AT_ONCE, Away, House, Idler, busiest_second, most_at_once
from tests.flow.test_kill import BACK_S, Books, Session, inbox, once

IDLERS, USERS = 500, 10
RESTARTED = ("imap", "submission", "mxrouter")
SENDERS = 2


@pytest.mark.timeout(300)
def test_a_rolling_restart(
    doubled: Any, record_property: Callable[[str, object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    users = [doubled.add_user() for _ in range(USERS)]
    load = Load(doubled, doubled.add_user())
    before = {name: doubled.pid(name) for name in doubled.state["services"]}

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        absences, at_first = runner.run(rolled(doubled, users, load))

    after = {name: doubled.pid(name) for name in before}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {f"{service}-{number}" for service in RESTARTED for number in (1, 2)}
    load.settled()
    busiest = busiest_second([away.since for away in absences])
    longest_s = max(away.until - away.since for away in absences)
    report = {
        "sessions": at_first,
        "goodbyes": len(absences),
        "most goodbyes a second": busiest,
        "most reconnects a second": busiest_second([away.until for away in absences]),
        "most away at once": most_at_once(absences),
        "longest away s": round(longest_s, 2),
    }
    record_property("rolling restart", report)
    with capsys.disabled():
        sys.stdout.write(f"\nrolling restart: {report}\n")
    assert all(away.told for away in absences), "a session was cut off without a goodbye"
    assert longest_s < GRACE_S, "a client was away for longer than the grace"
    # The first that goes has one half of them, the second has all.
    assert busiest < min(at_first.values()) / 2, "goodbyes came in one burst"


async def rolled(platform: Any, users: list[Any], load: Load) -> tuple[list[Away], dict[str, int]]:
    """Restart the services while mail programs wait for news: how these were away, and who had them at first.

    In the end each of them is told of a message of its user.
    """
    port, tls, at_once = platform.ports["imaps"], platform.tls(), asyncio.Semaphore(AT_ONCE)
    async with House([Idler(port, tls, users[n % USERS], at_once) for n in range(IDLERS)]) as house:
        at_first = await asyncio.to_thread(sessions, platform)
        with load:
            await asyncio.gather(*(restart(platform, service) for service in RESTARTED))
            await house.all_wait()
            await asyncio.to_thread(load.more, 20)
        assert all(each.absences for each in house.idlers), "each process was restarted, so everybody had to move"
        for user in users:
            message = letter(user.address, user.address)
            assert (await asyncio.to_thread(submit, platform, user, user.address, message))[0] == 250
        async with asyncio.timeout(30):
            await asyncio.gather(*(each.until_messages(1) for each in house.idlers))
        return house.absences, at_first


def sessions(platform: Any) -> dict[str, int]:
    """IMAP sessions by process."""
    return {f"imap-{n}": int(platform.counted(f"imap-{n}", "posta_imap_connections")) for n in (1, 2)}


async def restart(platform: Any, service: str) -> None:
    """`posta restart <service>`: one process after the other."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.dev", "restart", service),
        cwd=REPO,
        env=platform.env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode() + platform.last_words()
    assert said.decode().splitlines() == [f"{service}-{number} is ready again" for number in (1, 2)]


class Load:
    """Mail to one user by both doors, for as long as the block lasts; it ends when all of it is accepted."""

    def __init__(self, platform: Any, user: Any) -> None:
        self._platform, self._books, self._enough = platform, Books(user), threading.Event()
        sessions = [Session(platform, self._books, by_mx=n % 2 == 1) for n in range(SENDERS)]
        self._senders = [threading.Thread(target=self._work, args=(session,)) for session in sessions]

    def _work(self, session: Session) -> None:
        # Some fifteen messages a second, so that two cores have time for the clients that come back.
        while not self._enough.wait(0.2):
            session.send_all(5)

    def __enter__(self) -> Load:
        for each in self._senders:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        for each in self._senders:
            each.join(BACK_S * 2)

    def more(self, count: int) -> None:
        """Return when so many more messages are accepted."""
        wanted = len(self._books.accepted) + count
        self._platform.eventually("mail is accepted", lambda: len(self._books.accepted) >= wanted, BACK_S)

    def settled(self) -> None:
        """Everything accepted is there, once, and nothing was left without an answer."""
        books = self._books
        assert not books.wrong, books.wrong[:3]
        assert not books.cut, "a door that stops answers what it has been handed"
        self._platform.eventually(
            "all that was accepted is there",
            lambda: len({message_id(each) for each in inbox(self._platform, books.user)}) >= len(books.accepted),
            BACK_S,
        )
        once(self._platform, books)
