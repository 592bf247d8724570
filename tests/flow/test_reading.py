"""One mailbox read by several programs and devices at once: what one does, the others see."""

import mailbox
import poplib
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.flow.clients import (
    Imap,
    arrived,
    curl,
    drop,
    in_front,
    letter,
    message_id,
    run,
    submit,
    write_fetchmailrc,
    write_mbsyncrc,
)

BODY = "a line\r\n.a dot\r\n..\r\n\r\ngrüße, trailing space \r\n" + "y" * 990 + "\r\n"


@pytest.fixture
def carol(platform: Any) -> Any:
    return platform.add_user()


@pytest.fixture
def sent(platform: Any, alice: Any, carol: Any) -> bytes:
    """A message in carol's INBOX, the only one."""
    message = letter(alice.address, carol.address, BODY, "Content-Type: text/plain; charset=utf-8")
    assert submit(platform, alice, carol.address, message, ["BODY=8BITMIME"])[0] == 250
    arrived(platform, carol, message_id(message))
    return message


def test_curl_reads_by_pop_byte_for_byte(platform: Any, carol: Any, sent: bytes) -> None:
    done = curl(platform, carol, "pop3s", "1")
    assert done.returncode == 0, done.stderr
    in_front(done.stdout, sent)


def test_curl_reads_by_imap_byte_for_byte(platform: Any, carol: Any, sent: bytes) -> None:
    done = curl(platform, carol, "imaps", "INBOX;MAILINDEX=1")
    assert done.returncode == 0, done.stderr
    in_front(done.stdout, sent)
    assert curl(platform, carol, "pop3s", "1").stdout == done.stdout


def test_fetchmail_reads_by_pop(platform: Any, carol: Any, sent: bytes, tmp_path: Path) -> None:
    control = write_fetchmailrc(tmp_path, platform, carol, tmp_path / "got")

    done = run("fetchmail", "-f", str(control), "--pidfile", str(tmp_path / "pid"), env={"HOME": str(tmp_path)})

    assert done.returncode == 0, done.stdout + done.stderr
    # fetchmail hands lines over with bare LF, and adds a Received of its own in front.
    assert (tmp_path / "got").read_bytes().endswith(sent.replace(b"\r\n", b"\n"))
    again = run("fetchmail", "-f", str(control), "--pidfile", str(tmp_path / "pid"), env={"HOME": str(tmp_path)})
    assert again.returncode == 1, again.stdout + again.stderr  # nothing new: its UIDL is known


def test_mbsync_mirrors_both_ways(platform: Any, carol: Any, sent: bytes, tmp_path: Path) -> None:
    control = write_mbsyncrc(tmp_path, platform, carol)

    done = run("mbsync", "-c", str(control), "all", env={"HOME": str(tmp_path)})

    assert done.returncode == 0, done.stdout + done.stderr
    near = mailbox.Maildir(tmp_path / "mail" / "INBOX", create=False)
    ((key, _),) = near.iteritems()
    # mbsync marks what it copies with a header line of its own, and takes the CR of each line away.
    copied = re.sub(rb"(?m)^X-TUID: .*\n", b"", near.get_bytes(key)).replace(b"\n", b"\r\n")
    in_front(copied, sent)

    message = near[key]
    message.set_subdir("cur")
    message.add_flag("S")
    message.add_flag("F")
    near[key] = message
    near.add(b"From: carol@posta.test\nSubject: from the other side\n\nhello\n")
    done = run("mbsync", "-c", str(control), "all", env={"HOME": str(tmp_path)})
    assert done.returncode == 0, done.stdout + done.stderr

    with Imap(platform, carol) as imap:
        said = b"".join(imap.command("FETCH 1:* (FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])"))
        assert b"\\Seen" in said
        assert b"\\Flagged" in said
        assert b"from the other side" in said


def test_what_arrives_is_told_to_who_idles(platform: Any, alice: Any, carol: Any, sent: bytes) -> None:
    message = letter(alice.address, carol.address)
    with Imap(platform, carol) as one, Imap(platform, carol) as other:
        one.idle()
        other.idle()
        assert submit(platform, alice, carol.address, message)[0] == 250
        for imap in (one, other):
            imap.heard(rb"^\* 2 EXISTS")
            imap.done()
        in_front(one.fetch(2), message)
        in_front(other.fetch(1), sent)


def test_read_here_is_read_there(platform: Any, carol: Any, sent: bytes) -> None:
    with Imap(platform, carol) as phone, Imap(platform, carol) as desk:
        desk.idle()
        phone.command("STORE 1 +FLAGS (\\Seen)")
        desk.heard(rb"^\* 1 FETCH \(.*\\Seen")
        desk.done()

        phone.idle()
        desk.command("STORE 1 -FLAGS (\\Seen)")
        desk.command("STORE 1 +FLAGS (\\Flagged)")
        phone.heard(rb"^\* 1 FETCH \(.*\\Flagged")
        phone.done()
        assert b"\\Seen" not in b"".join(phone.command("FETCH 1 FLAGS"))


def test_deleted_by_pop_vanishes_in_imap(platform: Any, carol: Any, sent: bytes) -> None:
    with Imap(platform, carol) as imap:
        imap.idle()
        pop = drop(platform, carol)
        assert pop.stat()[0] == 1
        pop.dele(1)
        pop.quit()
        imap.heard(rb"^\* 1 EXPUNGE|^\* VANISHED")
        imap.done()
        assert imap.exists() == 0


def test_expunged_by_imap_vanishes_in_pop(platform: Any, carol: Any, sent: bytes) -> None:
    with Imap(platform, carol) as imap, Imap(platform, carol) as other:
        other.idle()
        imap.command("STORE 1 +FLAGS.SILENT (\\Deleted)")
        imap.command("EXPUNGE")
        other.heard(rb"^\* 1 EXPUNGE")
    pop = drop(platform, carol)
    assert pop.stat() == (0, 0)
    pop.quit()


def test_pop_that_is_cut_off_deletes_nothing(platform: Any, carol: Any, sent: bytes) -> None:
    pop = drop(platform, carol)
    pop.dele(1)
    pop.close()
    again = platform.eventually("the maildrop is free again", lambda: entered(platform, carol))
    assert again.stat()[0] == 1
    again.quit()


def entered(platform: Any, user: Any) -> Any:
    with suppress(poplib.error_proto):
        return drop(platform, user)
    return None


def test_what_one_program_stores_another_reads(platform: Any, carol: Any, tmp_path: Path) -> None:
    message = letter(carol.address, "friend@elsewhere.test", BODY)
    draft = tmp_path / "draft.eml"
    draft.write_bytes(message)
    done = curl(platform, carol, "imaps", "Drafts", "-T", str(draft))
    assert done.returncode == 0, done.stderr
    with Imap(platform, carol, "Drafts") as imap:
        assert imap.fetch(1) == message
        imap.command("MOVE 1 INBOX")
    assert curl(platform, carol, "pop3s", "1").stdout == message
