"""Who hears 250 for mail that is held, and what is kept of it for people."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.v1.mail_pb2 import Finding, Verdict
from services.core.held import accepted, concerned, letterhead, reason, tellable
from services.core.passes import holds, read, token
from services.core.store.quarantine import Policy

YES, NO = Policy("accept"), Policy("refuse")
SPF = [Finding(engine="auth", symbol="SPF_PASS", kind="policy")]
DKIM_ALONE = [Finding(engine="auth", symbol="DMARC_PASS", kind="policy")]


@pytest.mark.parametrize(
    ("sender", "by_login", "findings", "answer"),
    [
        ("a@x.test", False, SPF, True),
        ("a@x.test", False, [], False),
        ("a@x.test", False, DKIM_ALONE, False),
        ("alice@posta.test", True, [], True),
        ("", False, SPF, False),
        ("", True, [], False),
    ],
)
def test_who_can_be_told_later(sender: str, by_login: bool, findings: list[Finding], answer: bool) -> None:
    assert tellable(sender, by_login, findings) is answer


@pytest.mark.parametrize(
    ("policies", "can_be_told", "answer"),
    [([YES], True, True), ([YES, YES], True, True), ([YES, NO], True, False), ([YES], False, False), ([], True, False)],
)
def test_the_strictest_wins(policies: list[Policy], can_be_told: bool, answer: bool) -> None:
    assert accepted(policies, can_be_told) is answer


def test_the_policy_of_mail_that_goes_out_is_that_of_its_sender() -> None:
    both = [("bob@posta.test", True), ("eve@far.test", False)]
    assert concerned(both, "alice@Other.test") == {"posta.test", "other.test"}
    assert concerned(both, "") == {"posta.test"}
    assert concerned(both[1:], "") == set()


@pytest.mark.parametrize(
    ("octets", "head"),
    [
        (
            b"From: =?utf-8?q?J=C3=B6rg?= <j@x.test>\r\nSubject: one\r\n two\r\n\r\nFrom: b",
            ("Jörg <j@x.test>", "one two"),
        ),
        (b"", ("", "")),
        (b"\r\n\r\nSubject: body\r\n", ("", "")),
        (b"Subject: a\x00b\x1b[31mc\x7f\r\n\r\n", ("", "a b [31mc")),
        (b"Subject: =?utf-8?q?a=0D=0ABcc:_x?=\r\n\r\n", ("", "a Bcc: x")),
        (b"Subject: " + b"x" * 5000, ("", "x" * 300)),
    ],
)
def test_what_people_know_it_by(octets: bytes, head: tuple[str, str]) -> None:
    assert tuple(letterhead(octets)) == head


def test_the_reason_is_what_the_sender_hears_without_the_refusal() -> None:
    assert reason(Verdict(text="Message refused: it looks like spam", kind="spam")) == "it looks like spam"
    assert reason(Verdict(kind="spam")) == "spam"
    found = [Finding(symbol="DMARC_QUARANTINE", kind="policy", detail="x.test"), Finding(symbol="GTUBE", kind="spam")]
    assert reason(Verdict(kind="policy", findings=found)) == "DMARC_QUARANTINE x.test"


def test_a_pass_is_good_for_one_recipient_of_one_message() -> None:
    name, other = "01ky0000000000000000000000", "01ky0000000000000000000001"
    secret = bytes(range(16))
    word = token(secret, name, 3)
    claim = read(word)
    assert claim is not None
    assert (claim.spool_id, claim.n) == (name, 3)
    assert holds(claim, secret)
    assert not holds(claim, bytes(16))
    assert not holds(claim._replace(n=4), secret)
    assert not holds(claim._replace(spool_id=claim.spool_id.replace("00", "11")), secret)
    assert token(secret, other, 3) != word


@pytest.mark.parametrize("word", ["", "x", "01ky0000000000000000000000-1-", "../../etc", "a" * 5000, "%00-1-ff", "-1-"])
def test_what_is_no_pass(word: str) -> None:
    assert read(word) is None


@given(octets=st.binary(max_size=300), value=st.binary(max_size=100))
def test_whatever_the_octets_what_is_shown_is_a_line_that_postgres_takes(octets: bytes, value: bytes) -> None:
    for message in (octets, b"From: " + value + b"\r\nSubject: =?utf-8?q?" + value + b"?=\r\n\r\n"):
        for words in letterhead(message):
            words.encode()
            assert words.isprintable()
            assert "\0" not in words
