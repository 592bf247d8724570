"""Mail from another server, over port 25, with a real DNS: what is proven is told, what is forged is refused."""

import smtplib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import dkim
import dns.message
import dns.rcode
import dns.rrset
import pytest

from tests.flow.clients import arrived, inbox, letter, message_id, offer, submit
from tests.unit.filter.origin.zone import Signer

BANK = Signer("bank.test", 2048)
ZONE = {
    "1.0.0.127.in-addr.arpa.": {"PTR": ["mx.friend.test."]},
    "mx.friend.test.": {"A": ["127.0.0.1"]},
    "friend.test.": {"TXT": ['"v=spf1 ip4:127.0.0.0/8 -all"']},
    "_dmarc.friend.test.": {"TXT": ['"v=DMARC1; p=reject"']},
    "bank.test.": {"TXT": ['"v=spf1 -all"']},
    "_dmarc.bank.test.": {"TXT": ['"v=DMARC1; p=reject"']},
    "lenient.test.": {"TXT": ['"v=spf1 -all"']},
    "_dmarc.lenient.test.": {"TXT": ['"v=DMARC1; p=quarantine"']},
    **{
        f"{name}.": {"TXT": [" ".join(f'"{text[4:][at : at + 200]}"' for at in range(0, len(text), 200))]}
        for name, (text,) in BANK.zone().items()
    },
}


def _answer(question: dns.message.Message) -> dns.message.Message:
    answer = dns.message.make_response(question)
    asked = question.question[0]
    name, kind = asked.name.to_text().lower(), asked.rdtype.name
    if name.startswith(("dead.", "_dmarc.dead.")):
        answer.set_rcode(dns.rcode.SERVFAIL)
    elif name not in ZONE:
        answer.set_rcode(dns.rcode.NXDOMAIN)
    elif records := ZONE[name].get(kind):
        answer.answer.append(dns.rrset.from_text_list(asked.name, 60, "IN", kind, records))
    return answer


@pytest.fixture(scope="module")
def dns_port() -> Iterator[int]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))

        def serve() -> None:
            while True:
                octets, peer = sock.recvfrom(4096)
                if not octets:
                    return
                sock.sendto(_answer(dns.message.from_wire(octets)).to_wire(), peer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield sock.getsockname()[1]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", sock.getsockname())
        thread.join()


@pytest.fixture(scope="module")
def world(new_platform: Callable[..., Any], dns_port: int) -> Any:
    """A platform to which 127.0.0.1 is a stranger like any other."""
    platform = new_platform(
        {
            "POSTA_DNS_SERVERS": f"127.0.0.1:{dns_port}",
            "POSTA_FILTER_AUTH_EXEMPT": "",
            "POSTA_LIMITS_EXEMPT": "",
        }
    )
    platform.posta("up", "--detach")
    platform.state = platform.status()
    return platform


def hand_in(platform: Any, sender: str, to: str, message: bytes) -> tuple[int, str]:
    with smtplib.SMTP("localhost", platform.ports["smtp"], "mx.friend.test", timeout=60) as client:
        client.ehlo()
        return offer(client, sender, [to], message)


def _hostname(platform: Any) -> str:
    with smtplib.SMTP("localhost", platform.ports["smtp"], timeout=60) as client:
        return client.ehlo()[1].split()[0].decode()


def test_what_is_proven_is_told_and_what_was_claimed_is_gone(world: Any, bob: Any) -> None:
    forged = "Authentication-Results: mx.posta.test; dkim=pass header.d=bank.test"
    host = _hostname(world)
    message = letter("a@friend.test", bob.address, "Hello\r\n", forged.replace("mx.posta.test", host))
    assert hand_in(world, "a@friend.test", bob.address, message)[0] == 250
    got = arrived(world, bob, message_id(message))
    assert b"dkim=pass" not in got
    lines = b" ".join(got.split())
    assert f"Authentication-Results: {host}; spf=pass (friend.test permits 127.0.0.1)".encode() in lines
    assert b"dmarc=pass (p=reject) header.from=friend.test" in lines
    assert b"iprev=pass (mx.friend.test) policy.iprev=127.0.0.1" in lines
    assert b"Received: from mx.friend.test (mx.friend.test [127.0.0.1])" in lines
    assert b"Received-SPF: pass" in lines


def test_a_forger_is_refused_in_the_session(world: Any, bob: Any) -> None:
    message = letter("info@bank.test", bob.address)
    code, said = hand_in(world, "info@bank.test", bob.address, message)
    assert (code, said) == (550, "5.7.1 Message refused by the DMARC policy of bank.test")


def test_a_signature_survives_the_way(world: Any, bob: Any) -> None:
    message = letter("info@bank.test", bob.address)
    signed = bytes(dkim.sign(message, b"rsa", b"bank.test", BANK.rsa)) + message
    assert hand_in(world, "list@elsewhere.test", bob.address, signed)[0] == 250
    assert b"dkim=pass header.d=bank.test" in b" ".join(arrived(world, bob, message_id(message)).split())


def test_what_is_to_be_quarantined_lands_in_junk(world: Any, bob: Any) -> None:
    message = letter("a@lenient.test", bob.address)
    assert hand_in(world, "a@lenient.test", bob.address, message)[0] == 250
    steps = world.eventually(
        "it was delivered",
        lambda: [s for j in world.trace(message_id(message)) for s in j["steps"] if s["step"] == "delivered"],
    )
    assert "junk" in steps[0]["detail"]
    assert not any(message_id(message).encode() in each for each in inbox(world, bob))


def test_a_domain_whose_dns_is_dead_waits(world: Any, bob: Any) -> None:
    code, said = hand_in(world, "a@dead.test", bob.address, letter("a@dead.test", bob.address))
    assert (code, said[:5]) == (451, "4.7.1")
    assert "dead.test" in said


def test_our_own_users_are_not_asked_for_proof(world: Any, alice: Any, bob: Any) -> None:
    message = letter(alice.address, bob.address)
    assert submit(world, alice, bob.address, message)[0] == 250
    assert b"Authentication-Results" not in arrived(world, bob, message_id(message))
