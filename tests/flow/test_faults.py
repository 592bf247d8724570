"""Servers that die, are stopped, or lose everything they had: what was accepted is delivered, the rest is refused."""

import asyncio
import poplib
import shutil
import smtplib
from typing import Any

import pytest

from tests.flow.clients import Imap, arrived, drop, inbox, letter, message_id, offer, submission, submit


@pytest.fixture
def carol(mortal: Any) -> Any:
    return mortal.add_user()


def taken(platform: Any, user: Any) -> bytes:
    """A message from `user` to itself, accepted."""
    message = letter(user.address, user.address)
    assert submit(platform, user, user.address, message)[0] == 250
    return message


def comes_back(platform: Any, user: Any) -> None:
    """The doors accept again, without anything being restarted but what was stopped."""
    platform.eventually("mail is accepted again", lambda: accepts(platform, user))


def accepts(platform: Any, user: Any) -> bool:
    try:
        return submit(platform, user, user.address, letter(user.address, user.address))[0] == 250
    except (OSError, smtplib.SMTPException):
        return False


def test_without_nats_mail_is_read_and_none_is_accepted(mortal: Any, carol: Any) -> None:
    kept = taken(mortal, carol)
    arrived(mortal, carol, message_id(kept))
    with Imap(mortal, carol) as imap, submission(mortal, carol) as client:
        mortal.kill("nats")
        mortal.stop("nats")

        refused = letter(carol.address, carol.address)
        for _ in range(2):  # on a connection that was open, and for a name that was not asked for yet
            code, said = offer(client, carol.address, [carol.address, "carol+x@posta.test"], refused)
            assert (code, said[:3]) == (451, "4.7"), said
        assert submit(mortal, carol, carol.address, refused)[0] == 451
        imap.command("STORE 1 +FLAGS (\\Seen)")
        assert imap.fetch(1).endswith(kept)
        with Imap(mortal, carol) as another:
            assert b"\\Seen" in b"".join(another.command("FETCH 1 FLAGS"))
        assert inbox(mortal, carol)[0].endswith(kept)

        mortal.start("nats")
        mortal.eventually(
            "mail is accepted again", lambda: offer(client, carol.address, [carol.address], kept)[0] == 250
        )
        mortal.eventually("it is in the INBOX", lambda: imap.exists() == 2)
    assert not any(message_id(refused).encode() in each for each in inbox(mortal, carol))


def test_nats_may_lose_all_it_had(mortal: Any, carol: Any) -> None:
    mortal.stop("delivery")
    waiting = [taken(mortal, carol) for _ in range(5)]
    mortal.kill("nats")
    mortal.stop("nats")
    shutil.rmtree(mortal.home / "nats" / "jetstream")

    mortal.start("nats")
    mortal.start("delivery")

    for each in waiting:
        arrived(mortal, carol, message_id(each), timeout_s=60)
    assert len(inbox(mortal, carol)) == len(waiting)
    comes_back(mortal, carol)


def test_without_postgres_everybody_is_told_to_come_back(mortal: Any, carol: Any) -> None:
    mortal.stop("delivery")
    waiting = taken(mortal, carol)
    with submission(mortal, carol) as client:
        assert offer(client, carol.address, [carol.address], letter(carol.address, carol.address))[0] == 250
        mortal.kill("postgres")
        mortal.stop("postgres")

        code, said = offer(client, carol.address, [carol.address], letter(carol.address, carol.address))
        assert (code, said[:3]) == (451, "4.3"), said
        with smtplib.SMTP("localhost", mortal.ports["smtp"]) as mx:
            mx.ehlo()
            assert mx.mail("a@elsewhere.test")[0] == 250
            assert mx.rcpt("somebody-new@posta.test")[0] == 451
        with pytest.raises(smtplib.SMTPResponseException) as refusal:
            submit(mortal, carol._replace(password="another"), carol.address, b"")
        assert refusal.value.smtp_code == 454
        with pytest.raises(poplib.error_proto, match=r"\[SYS/TEMP\]"):
            drop(mortal, carol)

        mortal.start("postgres")
        mortal.start("delivery")
        mortal.eventually(
            "mail is accepted again",
            lambda: offer(client, carol.address, [carol.address], letter(carol.address, carol.address))[0] == 250,
        )
    arrived(mortal, carol, message_id(waiting), timeout_s=40)
    mortal.eventually("all three are there", lambda: len(inbox(mortal, carol)) == 3, 40)


def test_a_door_that_is_told_to_stop_finishes_what_it_has_begun(mortal: Any, carol: Any) -> None:
    message = letter(carol.address, carol.address)
    client = submission(mortal, carol)
    client.mail(carol.address)
    client.rcpt(carol.address)
    assert client.docmd("DATA")[0] == 354
    client.send(message)

    async def stop_and_end() -> tuple[int, bytes]:
        stopping = asyncio.create_task(asyncio.to_thread(mortal.stop, "submission"))
        await asyncio.to_thread(mortal.eventually, "it takes no more", lambda: not listens(mortal))
        client.send(b".\r\n")
        answer = await asyncio.to_thread(client.getreply)
        await stopping
        return answer

    assert asyncio.run(stop_and_end())[0] == 250
    mortal.start("submission")
    arrived(mortal, carol, message_id(message))


def listens(platform: Any) -> bool:
    try:
        smtplib.SMTP("localhost", platform.ports["submission"]).close()
    except (OSError, smtplib.SMTPException):
        return False
    return True
