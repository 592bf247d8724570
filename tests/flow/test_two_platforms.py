"""Two platforms mail each other: by MX records of the test DNS, over TLS, with bounces and the answer coming back."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.flow.clients import arrived, inbox, letter, message_id, submit
from tests.flow.conftest import User


@pytest.fixture(scope="module")
def pair(new_platform: Any) -> tuple[Any, Any]:
    """posta.test and remote.test. Each finds the other one's MX host on this machine, at the other one's port."""
    here, there = new_platform(), new_platform()
    here.env["POSTA_RELAY_PORT"] = str(there.ports["smtp"])
    there.env["POSTA_RELAY_PORT"] = str(here.ports["smtp"])
    for platform in (here, there):
        platform.posta("up", "--detach", "--no-accounts", "--without", "imap")
        platform.state = platform.status()
    return here, there


@pytest.fixture(scope="module")
def alice(pair: tuple[Any, Any]) -> User:
    return _user(pair[0], "alice@posta.test")


@pytest.fixture(scope="module")
def carol(pair: tuple[Any, Any]) -> User:
    return _user(pair[1], "carol@remote.test")


def _user(platform: Any, address: str) -> User:
    user = User(address, "correct horse")
    platform.provision(lambda p: p.ensure_domain(address.partition("@")[2]))
    platform.provision(lambda p: p.ensure_account(user.address, user.password, ""))
    return user


def steps(platform: Any, message: bytes) -> dict[str, str]:
    """What became of a message, by step."""
    return {step["step"]: str(step) for journey in platform.trace(message_id(message)) for step in journey["steps"]}


def test_a_letter_and_its_answer(pair: tuple[Any, Any], alice: User, carol: User) -> None:
    here, there = pair

    question = letter(alice.address, carol.address, ".a dot\r\n..two\r\n")
    submit(here, alice, carol.address, question)
    got = arrived(there, carol, message_id(question))
    assert got.endswith(question)
    assert b" with ESMTPS id " in got
    assert "mx.remote.test" in here.eventually("it was relayed", lambda: steps(here, question).get("relayed"))

    answer = letter(carol.address, alice.address, "Hello Alice\r\n")
    submit(there, carol, alice.address, answer)
    assert arrived(here, alice, message_id(answer)).endswith(answer)


@pytest.mark.parametrize(("recipient", "status"), [("nobody@remote.test", b"5.1.1"), ("carol@nowhere.test", b"5.1.2")])
def test_a_letter_that_comes_back(
    pair: tuple[Any, Any], alice: User, carol: User, recipient: str, status: bytes
) -> None:
    here, _ = pair

    lost = letter(alice.address, recipient)
    submit(here, alice, recipient, lost)

    notice = arrived(here, alice, message_id(lost))
    assert b"\r\nAction: failed\r\nStatus: " + status in notice
    assert b"\r\nFinal-Recipient: rfc822; " + recipient.encode() in notice


def test_a_host_that_dane_does_not_know_gets_nothing(pair: tuple[Any, Any], alice: User) -> None:
    """strict.test is served by the same host as remote.test, under a name whose TLSA record tells."""
    here, there = pair
    other = _user(there, "carol@strict.test")
    zone = f";posta: signed\n$TTL 0\n@ IN MX 1 mx\nmx IN A 127.0.0.1\n_{there.ports['smtp']}._tcp.mx IN TLSA 3 1 1 "
    path = here.home / "zones" / "strict.test.zone"

    path.write_text(zone + "00" * 32 + "\n")
    held = letter(alice.address, other.address)
    submit(here, alice, other.address, held)
    here.eventually("it was put off", lambda: "4.7.5" in here.posta("queue", "list", "--json"))
    assert inbox(there, other) == []

    certificate = x509.load_pem_x509_certificate((there.home / "tls" / "cert.pem").read_bytes())
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    path.write_text(zone + hashlib.sha256(key).hexdigest() + "\n")
    here.posta("queue", "retry", "--domain", "strict.test")
    assert arrived(there, other, message_id(held)).endswith(held)
