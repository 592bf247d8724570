"""The disk of Postgres is full: senders are told to come back, nothing accepted is lost, and room is all it takes."""

from __future__ import annotations

import asyncio
import os
import shutil
import smtplib
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.flow.clients import inbox, letter, message_id, offer, submission

SIZE = "200m"
LATER = (421, 451, 452, 454)
SERVICES = ("postgres", "submission", "mxrouter", "filter", "delivery", "pop")


@pytest.fixture
def full(new_platform: Callable[..., Any]) -> Iterator[tuple[Any, Path]]:
    """A platform whose Postgres has its data on a filesystem of 200 MB, and the folder where they are."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root and mount: a filesystem of 200 MB for Postgres")
    platform = new_platform({"POSTA_SPOOL_SWEEP_S": "1", "POSTA_SUBMISSION_RECIPIENTS_PER_HOUR": "0"})
    words = ("up", "--detach", "--without", "imap,sync")
    platform.posta(*words)
    platform.posta("down")
    data = Path((platform.home / "postgres" / "location").read_text().strip()) / "data"
    found = data.stat()
    moved = data.with_name("moved")
    data.rename(moved)
    data.mkdir()
    options = f"size={SIZE},mode=0700,uid={found.st_uid},gid={found.st_gid}"
    done = subprocess.run(("mount", "-t", "tmpfs", "-o", options, "tmpfs", data), capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"a filesystem of 200 MB cannot be mounted here: {done.stderr.strip()}")
    try:
        subprocess.run(("cp", "-a", f"{moved}/.", data), check=True)
        platform.posta(*words)
        platform.state = platform.status()
        yield platform, data
        platform.try_posta("down")
    finally:
        subprocess.run(("umount", "--lazy", data), check=True)


def fill(data: Path) -> Path:
    """Leave no block free."""
    path = data / "filler"
    with path.open("wb") as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
            file.flush()
    return path


def stranger(platform: Any) -> smtplib.SMTP:
    client = smtplib.SMTP("localhost", platform.ports["smtp"], timeout=60)
    client.ehlo()
    return client


async def next_segment(url: str) -> None:
    """Postgres needs a new file for its log with whatever it writes next."""
    conn = await asyncpg.connect(url)
    try:
        await conn.execute("SELECT pg_switch_wal()")
    finally:
        await conn.close()


class Door:
    """A client that keeps its connection as long as it can, and what it was told."""

    def __init__(self, connect: Callable[[], smtplib.SMTP], sender: str, user: Any) -> None:
        self._connect, self._sender, self._user = connect, sender, user
        self._client: smtplib.SMTP | None = connect()
        self.accepted: set[str] = set()
        self.cut: set[str] = set()  # no answer came: kept or not (RFC 1047)
        self.codes: Counter[int] = Counter()

    def send(self, octets: int) -> int:
        """Offer one letter: the code of the reply, 0 where none came."""
        message = letter(self._sender, self._user.address, f"{os.urandom(35).hex()}\r\n" * (octets // 72 + 1))
        code = 0
        try:
            self._client = self._client or self._connect()
            code, _ = offer(self._client, self._sender, [self._user.address], message)
        except smtplib.SMTPResponseException as error:
            code = error.smtp_code
        except (OSError, smtplib.SMTPException):
            self.cut.add(message_id(message))
        if code in (0, 421, 454):
            self._client = None
        if code == 250:
            self.accepted.add(message_id(message))
        self.codes[code] += 1
        return code


@pytest.mark.timeout(400)
def test_senders_come_back_and_nothing_is_lost(full: tuple[Any, Path]) -> None:
    platform, data = full
    user = platform.add_user()
    doors = [
        Door(lambda: submission(platform, user), user.address, user),
        Door(lambda: stranger(platform), "someone@elsewhere.test", user),
    ]
    for door in doors:
        assert [door.send(2000) for _ in range(5)] == [250] * 5

    filler = fill(data)
    for door in doors:
        platform.eventually("it refuses", lambda door=door: door.send(200_000) in LATER, 60)
    # Then there is no room for what Postgres logs either, and it goes down.
    with suppress(OSError, asyncpg.PostgresError):
        asyncio.run(next_segment(platform.database_url))
    for door in doors:
        for _ in range(5):
            door.send(2000)
    assert all(set(door.codes) <= {0, 250, *LATER} for door in doors), [door.codes for door in doors]
    assert "No space left on device" in platform.log("submission") + platform.log("mxrouter")

    filler.unlink()

    for door in doors:
        platform.eventually("mail is accepted again", lambda door=door: door.send(2000) == 250, 90)
    for name in SERVICES:
        platform.until_ready(name, 60)
    accepted, cut = doors[0].accepted | doors[1].accepted, doors[0].cut | doors[1].cut
    platform.eventually("all are there", lambda: accepted <= there(platform, user).keys(), 90)
    found = there(platform, user)
    assert set(found.values()) == {1}, "twice"
    assert found.keys() <= accepted | cut, "there, and never accepted"


def there(platform: Any, user: Any) -> Counter[str]:
    """How often each message lies in the INBOX."""
    return Counter(message_id(each) for each in inbox(platform, user))
