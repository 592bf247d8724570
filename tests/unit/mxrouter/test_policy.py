"""Who is refused at RCPT, for everything that may be known."""

import pytest

from services.mxrouter.policy import Facts, Rules, SenderDomain, goes_round, refusal

HOST = "mx.posta.test"
ALL = Rules(helo_name=True, rdns=True, sender_domain=True)


def facts(helo: str = "client.test", iprev: str = "pass", to: str = "bob", domain: SenderDomain | None = None) -> Facts:
    return Facts(helo, iprev, domain or SenderDomain.TAKES_MAIL, to)


@pytest.mark.parametrize(
    ("known", "reply"),
    [
        (facts(), None),
        (facts(helo="localhost"), 504),
        (facts(helo="192.0.2.1"), 504),
        (facts(helo="x" * 64 + ".test"), 504),
        (facts(helo="a..test"), 504),
        (facts(helo="-"), 504),
        (facts(helo="[192.0.2.1]"), None),
        (facts(helo="[IPv6:2001:db8::1]"), None),
        (facts(helo="client.test."), None),
        (facts(helo="under_score.client.test"), None),
        (facts(helo="MX.posta.TEST"), 550),
        (facts(helo="mx.posta.test."), 550),
        (facts(iprev="fail"), 550),
        (facts(iprev="permerror"), 550),
        (facts(iprev="temperror"), 451),
        (facts(domain=SenderDomain.UNKNOWN), 550),
        (facts(domain=SenderDomain.TAKES_NONE), 550),
        (facts(domain=SenderDomain.NO_ANSWER), 451),
        (facts(domain=SenderDomain.UNASKED), None),
        (facts(helo="localhost", iprev="fail", to="Postmaster"), None),
        (facts(helo="localhost", iprev="fail", to="abuse"), None),
    ],
)
def test_refusals(known: Facts, reply: int | None) -> None:
    said = refusal(known, ALL, HOST)
    assert (said.code if said else None) == reply
    # Nothing of it without being demanded.
    assert refusal(known, Rules(), HOST) is None


def hop(by: bytes) -> bytes:
    return b"Received: from a (b [192.0.2.1])\r\n\tby " + by + b" with ESMTP id 1;\r\n Fri, 2 Jan 2026\r\n"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"", False),
        (b"Subject: x\r\n\r\n" + hop(b"mx.posta.test") * 200, False),
        (hop(b"mx.posta.test") * 5 + b"\r\n", False),
        (hop(b"mx.posta.test") * 6 + b"\r\n", True),
        (hop(b"MX.POSTA.TEST") * 6 + b"\r\n", True),
        (hop(b"mx.posta.test") * 6, True),
        (hop(b"other.test") * 100 + b"\r\n", False),
        (hop(b"other.test") * 101 + b"\r\n", True),
        ((hop(b"other.test") + hop(b"mx.posta.test")) * 6 + b"\r\n", True),
        (b"Received: nonsense\r\n" * 6 + b"\r\n", False),
    ],
)
def test_loops(message: bytes, expected: bool) -> None:
    assert goes_round(message, HOST) is expected
