"""Which verdicts count against who handed the message in, and the mail that tells of a pause."""

import email
import email.policy
from datetime import UTC, datetime

import pytest

from services.contracts.v1.mail_pb2 import Finding, Verdict
from services.submission.outbreak import is_bad, notice

NOW = datetime(2026, 11, 25, 10, 0, tzinfo=UTC)
VIRUS = Finding(engine="clamd", symbol="EICAR", kind="virus")
TYPE = Finding(engine="policy", symbol="ATTACHMENT_TYPE", kind="policy", detail="a.exe")


@pytest.mark.parametrize(
    ("verdict", "answer"),
    [
        (Verdict(action=Verdict.ACCEPT), False),
        (Verdict(action=Verdict.ACCEPT, score=5.9), False),
        (Verdict(action=Verdict.JUNK, score=6), True),
        (Verdict(action=Verdict.REJECT, kind="spam", score=1), True),
        (Verdict(action=Verdict.ACCEPT, kind="spam", score=1), False),
        (Verdict(action=Verdict.REJECT, findings=[VIRUS]), True),
        (Verdict(action=Verdict.QUARANTINE, findings=[TYPE, VIRUS]), True),
        # An attachment that may not be sent is a mistake, and a filter that is down nobody's fault.
        (Verdict(action=Verdict.REJECT, findings=[TYPE]), False),
        (Verdict(action=Verdict.TEMPFAIL), False),
    ],
)
def test_what_counts(verdict: Verdict, answer: bool) -> None:
    assert is_bad(verdict, 6) is answer


def test_the_notice() -> None:
    to = ("bob@posta.test", "postmaster@posta.test")
    found = email.message_from_bytes(
        notice("bob@posta.test", "10 of its messages were spam", "mx.posta.test", to, NOW, "id@mx.posta.test"),
        policy=email.policy.default,
    )
    assert not found.defects
    assert (found["To"], found["Auto-Submitted"]) == (", ".join(to), "auto-generated")
    text = found.get_payload()
    assert "Sending is paused for <bob@posta.test>, because 10 of its messages were spam." in text
    assert "posta account resume bob@posta.test" in text
