"""Where an address leads: aliases, subaddresses, catch-alls, addresses outside ASCII."""

import base64
import smtplib
import uuid
from typing import Any

from tests.flow.clients import arrived, in_front, inbox, letter, message_id, offer, submission, submit


def test_an_alias_reaches_everybody_it_names_once(platform: Any, alice: Any, bob: Any) -> None:
    team = f"team-{uuid.uuid4().hex[:8]}@posta.test"
    carol = platform.add_user()
    platform.add_alias(team, bob.address, carol.address)
    message = letter(alice.address, team)

    assert submit(platform, alice, [team, carol.address], message)[0] == 250

    in_front(arrived(platform, bob, message_id(message)), message)
    in_front(arrived(platform, carol, message_id(message)), message)
    assert len(inbox(platform, carol)) == 1


def test_a_subaddress_is_the_mailbox(platform: Any, alice: Any, bob: Any) -> None:
    message = letter(alice.address, "bob+lists@posta.test")
    assert submit(platform, alice, "BOB+lists@Posta.Test", message)[0] == 250
    in_front(arrived(platform, bob, message_id(message)), message)


def test_one_may_write_from_a_subaddress_and_an_alias_of_ones_own(platform: Any, alice: Any, bob: Any) -> None:
    mine = f"sales-{uuid.uuid4().hex[:8]}@posta.test"
    platform.add_alias(mine, alice.address)
    with submission(platform, alice) as client:
        for sender in (mine, "alice+work@posta.test"):
            message = letter(sender, bob.address)
            assert offer(client, sender, [bob.address], message)[0] == 250
            arrived(platform, bob, message_id(message))


def test_a_catch_all_takes_what_has_no_address_of_its_own(platform: Any, alice: Any) -> None:
    domain = f"d{uuid.uuid4().hex[:8]}.test"
    carol = platform.add_user()
    platform.posta("domain", "add", domain)
    code, said = submit(platform, alice, f"anybody@{domain}", letter(alice.address, "x"))
    assert (code, said[:5]) == (550, "5.1.1")

    platform.posta("alias", "add", f"@{domain}", carol.address)

    message = letter(alice.address, f"anybody@{domain}")
    # The announcement has reached the door by the time the verb returns, or does so at once after.
    platform.eventually(
        "the catch-all is known", lambda: submit(platform, alice, f"anybody@{domain}", message)[0] == 250
    )
    in_front(arrived(platform, carol, message_id(message)), message)


def test_an_address_outside_ascii(platform: Any, alice: Any) -> None:
    jörg = platform.add_user("jörg")
    message = letter(alice.address, jörg.address, "grüße\r\n")
    with submission(platform, alice) as client:
        client.command_encoding = "utf-8"
        assert client.mail(alice.address)[0] == 250
        code, said = client.rcpt(jörg.address)
        assert (code, said[:5]) == (553, b"5.6.7")
        client.rset()

        assert offer(client, alice.address, [jörg.address], message, ["SMTPUTF8", "BODY=8BITMIME"])[0] == 250

    prefix = in_front(arrived(platform, jörg, message_id(message)), message)
    assert b" with UTF8SMTPSA id " in prefix
    assert f"for <{jörg.address}>".encode() in prefix


def test_mail_from_an_address_outside_ascii(platform: Any, bob: Any) -> None:
    sender = platform.add_user("zoë")
    message = letter(sender.address, bob.address, "x\r\n")
    with smtplib.SMTP("localhost", platform.ports["submission"]) as client:
        client.command_encoding = "utf-8"
        client.starttls(context=platform.tls())
        client.ehlo()
        # smtplib's own login cannot write such a name.
        words = base64.b64encode(f"\0{sender.address}\0{sender.password}".encode()).decode()
        assert client.docmd("AUTH", f"PLAIN {words}")[0] == 235
        assert offer(client, sender.address, [bob.address], message, ["SMTPUTF8"])[0] == 250
    assert arrived(platform, bob, message_id(message)).startswith(f"Return-Path: <{sender.address}>".encode())
