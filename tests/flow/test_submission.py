"""Handing mail in as users do: logins, what the door refuses and with which words."""

import hashlib
import hmac
import smtplib
import ssl
from base64 import b64decode, b64encode
from typing import Any

import pytest

from tests.flow.clients import arrived, in_front, letter, message_id, offer, run, submission, submit, swaks


@pytest.mark.parametrize("door", ["submission", "submissions"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_a_login_hands_mail_in(platform: Any, alice: Any, bob: Any, door: str, mechanism: str) -> None:
    mark = f"by {mechanism} at {door}"

    code, said = swaks(platform, bob.address, "-a", mechanism, "--header", f"Subject: {mark}", user=alice, door=door)

    assert code == 0, said
    assert f"AUTH {mechanism}" in said
    got = arrived(platform, bob, mark)
    assert got.startswith(b"Return-Path: <alice@posta.test>\r\nReceived: from ")
    assert b" with ESMTPSA id " in got


def test_a_login_by_scram(platform: Any, alice: Any, bob: Any) -> None:
    message = letter(alice.address, bob.address)
    with smtplib.SMTP_SSL("localhost", platform.ports["submissions"], context=platform.tls()) as client:
        client.ehlo()
        assert "SCRAM-SHA-256" in client.esmtp_features["auth"]
        client.user, client.password = alice.address, alice.password  # type: ignore[attr-defined]
        scram = Scram(alice.address, alice.password)
        code, _ = client.auth("SCRAM-SHA-256", scram)
        assert code == 235
        assert scram.server_proved
        assert offer(client, alice.address, [bob.address], message)[0] == 250
    in_front(arrived(platform, bob, message_id(message)), message)


class Scram:
    """The client's half of RFC 5802 3, as smtplib calls it."""

    def __init__(self, user: str, password: str) -> None:
        self.bare, self.password = f"n={user},r=a-client-nonce".encode(), password.encode()
        self.server_proved = False
        self.expected = b""

    def __call__(self, challenge: bytes | None = None) -> str:
        if not challenge:
            return "n,," + self.bare.decode()
        values = dict(part.split(b"=", 1) for part in challenge.split(b","))
        if b"v" in values:
            self.server_proved = b64decode(values[b"v"]) == self.expected
            return ""
        salted = hashlib.pbkdf2_hmac("sha256", self.password, b64decode(values[b"s"]), int(values[b"i"]))
        key = hmac.digest(salted, b"Client Key", "sha256")
        without = b"c=biws,r=" + values[b"r"]
        signed = b",".join((self.bare, challenge, without))
        self.expected = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), signed, "sha256")
        signature = hmac.digest(hashlib.sha256(key).digest(), signed, "sha256")
        proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
        return (without + b",p=" + b64encode(proof)).decode()


def test_no_login_without_tls(platform: Any, alice: Any) -> None:
    with smtplib.SMTP("localhost", platform.ports["submission"]) as client:
        client.ehlo()
        assert "auth" not in client.esmtp_features
        assert client.docmd("AUTH", "PLAIN AGFsaWNlAHg=")[0] == 538
        assert client.docmd("MAIL", f"FROM:<{alice.address}>")[0] == 530


def test_a_wrong_password_is_refused_and_nothing_may_follow(platform: Any, bob: Any) -> None:
    user = platform.add_user()

    code, said = swaks(platform, bob.address, user=user._replace(password="wrong"))

    assert code == 28, said
    assert "535 5.7.8" in said
    assert swaks(platform, bob.address, user=user)[0] == 0


def test_an_unknown_login_is_refused_in_the_same_words(platform: Any, alice: Any, bob: Any) -> None:
    nobody = alice._replace(address="nobody@posta.test")
    assert "535 5.7.8" in swaks(platform, bob.address, user=nobody)[1]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_of_old_is_not_spoken(platform: Any) -> None:
    context = platform.tls()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        smtplib.SMTP_SSL("localhost", platform.ports["submissions"], context=context)


def test_an_envelope_sender_must_be_the_logins_own(platform: Any, alice: Any, bob: Any) -> None:
    code, said = swaks(platform, bob.address, user=alice, sender=bob.address)
    assert code == 23, said
    assert "553 5.7.1" in said


def test_a_from_must_be_the_logins_own(platform: Any, alice: Any, bob: Any) -> None:
    code, said = swaks(platform, bob.address, "--header", f"From: {bob.address}", user=alice)
    assert code == 26, said
    assert "550 5.7.1" in said


def test_each_recipient_is_answered_for_itself(platform: Any, bob: Any) -> None:
    sender = platform.add_user()
    message = letter(sender.address, bob.address)
    with submission(platform, sender) as client:
        assert client.mail(sender.address)[0] == 250
        said = [client.rcpt(each) for each in ("nobody@posta.test", bob.address, "bob@elsewhere.test")]
        assert [code for code, _ in said] == [550, 250, 250]
        assert said[0][1].startswith(b"5.1.1")
        assert client.data(message)[0] == 250
    arrived(platform, bob, message_id(message))


def test_other_domains_are_for_who_is_logged_in(platform: Any) -> None:
    sender = platform.add_user()
    code, said = swaks(platform, "someone@elsewhere.test", user=sender)
    assert code == 0, said
    code, said = swaks(platform, "someone@elsewhere.test")
    assert code == 23, said
    assert "530 5.7.0" in said


def test_the_mx_door_takes_mail_for_us_alone_and_asks_for_no_login(platform: Any, bob: Any) -> None:
    code, said = swaks(platform, bob.address, "--header", "Subject: from the world", door="smtp")
    assert code == 0, said
    assert b" with ESMTP id " in arrived(platform, bob, "from the world")

    code, said = swaks(platform, "someone@third.test", door="smtp")
    assert (code, "550 5.7.1" in said) == (24, True), said
    code, said = swaks(platform, "nobody@posta.test", door="smtp")
    assert (code, "550 5.1.1" in said) == (24, True), said


def test_what_the_user_left_out_is_added_in_front(platform: Any, alice: Any, bob: Any) -> None:
    message = f"From: {alice.address}\r\nSubject: bare 4711\r\nBcc: {bob.address}\r\n\r\nx\r\n".encode()

    assert submit(platform, alice, bob.address, message)[0] == 250

    prefix = in_front(arrived(platform, bob, "bare 4711"), message)
    assert b"\r\nDate: " in prefix
    assert b"\r\nMessage-ID: <" in prefix


def test_forged_results_of_our_name_do_not_reach_the_reader(platform: Any, bob: Any) -> None:
    code, said = swaks(
        *(platform, bob.address, "--header", "Subject: forged 4712"),
        *("--add-header", "Authentication-Results: localhost; dkim=pass header.d=bank.test"),
        door="smtp",
    )
    assert code == 0, said
    assert b"bank.test" not in arrived(platform, bob, "forged 4712")


def test_a_suspended_account_neither_sends_nor_receives(platform: Any, alice: Any) -> None:
    user = platform.add_user()
    assert swaks(platform, user.address, user=alice)[0] == 0
    platform.posta("account", "suspend", user.address)

    code, said = swaks(platform, user.address, user=alice)
    assert (code, "550 5.2.1" in said) == (24, True), said
    code, said = swaks(platform, alice.address, user=user)
    assert (code, "535 5.7.8" in said) == (28, True), said

    platform.posta("account", "resume", user.address)
    assert swaks(platform, user.address, user=alice)[0] == 0


def test_curl_hands_mail_in(platform: Any, alice: Any, bob: Any) -> None:
    message = letter(alice.address, bob.address, "a line\r\n.a line with a dot\r\n..\r\n")

    done = run(
        *("curl", "-sS", "--cacert", str(platform.ca), "-u", f"{alice.address}:{alice.password}", "--ssl-reqd"),
        *("--mail-from", alice.address, "--mail-rcpt", bob.address, "-T", "-"),
        f"smtp://localhost:{platform.ports['submission']}/client.test",
        stdin=message,
    )

    assert done.returncode == 0, done.stderr
    in_front(arrived(platform, bob, message_id(message)), message)
