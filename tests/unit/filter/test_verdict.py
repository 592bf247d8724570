"""What becomes of a message, for everything that engines may have found."""

from dataclasses import replace

import pytest

from services.contracts.v1 import mail_pb2 as pb
from services.core.settings import BadSettings, Filter
from services.filter.engine import FAULT, PASSED_OVER, Finding
from services.filter.verdict import RULES, Action, Policy, Rule, decide, policy_of, settled

VIRUS = Finding("clamd", "EICAR-Test-Signature", "virus")
TYPE = Finding("policy", "ATTACHMENT_TYPE", "policy", detail="a.exe")
SHAPE = Finding("policy", "MESSAGE_SHAPE", "policy", detail="too many parts")
NOTE = Finding("policy", "ARCHIVE_ENCRYPTED", "policy", detail="a.zip")
GTUBE = Finding("policy", "GTUBE", "spam", 10)
WORSE = Finding("rspamd", "BAYES_SPAM", "spam", 5.1)
LIGHT = Finding("rspamd", "MIME_HTML_ONLY", "spam", 0.2)
HAM = Finding("rspamd", "BAYES_HAM", "spam", -3)
DEAD = Finding("clamd", FAULT, "fault", detail="no answer within 10 s")
PASSED = Finding("dnsbl", PASSED_OVER, "fault", detail="no answer")


@pytest.mark.parametrize(
    ("findings", "reply"),
    [
        ([VIRUS], "554 5.7.1 Message refused: virus found (EICAR-Test-Signature)"),
        ([TYPE], "550 5.7.1 Message refused: attachment type not allowed (a.exe)"),
        ([SHAPE], "554 5.6.0 Message refused: malformed, too many parts"),
        ([DEAD], "451 4.7.1 The message could not be examined now, try again later (clamd)"),
        ([GTUBE, WORSE], "554 5.7.1 Message refused: it looks like spam"),
        # The virus is named even if its file would have been refused anyway.
        ([TYPE, SHAPE, GTUBE, VIRUS], "554 5.7.1 Message refused: virus found (EICAR-Test-Signature)"),
        # What is refused for certain need not come again only because another engine was down.
        ([DEAD, TYPE], "550 5.7.1 Message refused: attachment type not allowed (a.exe)"),
        ([DEAD, VIRUS], "554 5.7.1 Message refused: virus found (EICAR-Test-Signature)"),
        ([DEAD, GTUBE], "451 4.7.1 The message could not be examined now, try again later (clamd)"),
    ],
)
def test_refusals(findings: list[Finding], reply: str) -> None:
    verdict = decide(findings, Policy())
    assert f"{verdict.code} {verdict.enhanced} {verdict.text}" == reply
    assert verdict.action == (Action.TEMPFAIL if reply[0] == "4" else Action.REJECT)
    assert verdict.headers == b""
    assert settled(findings, Policy())


@pytest.mark.parametrize(
    ("findings", "action", "headers"),
    [
        ([], Action.ACCEPT, b""),
        ([NOTE], Action.ACCEPT, b""),
        (
            [LIGHT],
            Action.ACCEPT,
            b"X-Spam-Score: 0.2\r\nX-Spam-Status: No, score=0.2 required=6.0 tests=MIME_HTML_ONLY\r\n",
        ),
        (
            [GTUBE],
            Action.JUNK,
            b"X-Spam-Flag: YES\r\nX-Spam-Score: 10.0\r\nX-Spam-Status: Yes, score=10.0 required=6.0 tests=GTUBE\r\n",
        ),
        (
            [WORSE, HAM],
            Action.ACCEPT,
            b"X-Spam-Score: 2.1\r\nX-Spam-Status: No, score=2.1 required=6.0 tests=BAYES_SPAM, BAYES_HAM\r\n",
        ),
        ([PASSED], Action.ACCEPT, b"X-Posta-Not-Examined-By: dnsbl\r\n"),
    ],
)
def test_what_passes(findings: list[Finding], action: pb.Verdict.Action.ValueType, headers: bytes) -> None:
    verdict = decide(findings, Policy())
    assert (verdict.action, verdict.headers, verdict.code) == (action, headers, 0)
    assert [each.symbol for each in verdict.findings] == [each.symbol for each in findings]
    assert not settled(findings, Policy())


def test_a_new_symbol_is_a_row_in_the_table() -> None:
    held = Rule(Action.QUARANTINE, 550, "5.7.1", "Message held for review")
    policy = Policy(rules={**RULES, "DMARC_QUARANTINE": held})
    finding = Finding("auth", "DMARC_QUARANTINE", "policy")
    assert decide([finding], policy).action == Action.QUARANTINE
    assert not settled([finding], policy)  # a later engine may still find a virus
    assert decide([finding, GTUBE], policy).action == Action.QUARANTINE
    assert decide([finding, TYPE], policy).action == Action.REJECT


@pytest.mark.parametrize("nasty", ["a\r\nX-Evil: yes", "a\nb", "\u202egpj.exe", "ü\0\x7f", "x" * 5000, "{0.__class__}"])
def test_nothing_that_a_message_says_can_add_a_line(nasty: str) -> None:
    findings = [replace(each, symbol=nasty, detail=nasty) for each in (GTUBE, HAM)]
    headers = decide(findings, Policy(reject_score=99)).headers
    assert headers.isascii()
    lines = headers.decode().split("\r\n")
    assert all(line.startswith((" ", "X-Spam-")) for line in lines[:-1])
    for finding in (replace(VIRUS, symbol=nasty), replace(TYPE, detail=nasty), replace(DEAD, engine=nasty)):
        text = decide([finding], Policy()).text
        assert text.isascii()
        assert text.isprintable()
        assert len(text) < 300


def test_long_headers_are_folded() -> None:
    many = [replace(LIGHT, symbol=f"SYMBOL_NUMBER_{n}") for n in range(40)]
    headers = decide(many, Policy(junk_score=99)).headers
    assert max(map(len, headers.split(b"\r\n"))) < 78
    unfolded = headers.replace(b"\r\n ", b" ")
    assert b"tests=SYMBOL_NUMBER_0, SYMBOL_NUMBER_1," in unfolded
    assert unfolded.count(b"\r\n") == 2


def judged(how: str, score: float) -> Finding:
    """What rspamd says at the end of its findings."""
    return Finding("spam_rspamd", f"JUDGED_{how}", "spam", score, required=15)


HOLD = policy_of(Filter(hold=("ATTACHMENT_TYPE", "VIRUS", "SPAM")))


@pytest.mark.parametrize(
    ("findings", "policy", "said"),
    [
        # Between two scores a person decides.
        ([replace(GTUBE, score=12)], Policy(), (Action.QUARANTINE, "spam", "Message refused: it looks like spam")),
        ([replace(GTUBE, score=15)], Policy(), (Action.REJECT, "spam", "Message refused: it looks like spam")),
        ([replace(GTUBE, score=11.9)], Policy(), (Action.JUNK, "spam", "")),
        # So it is where an engine has judged for itself, unless it says that this is no spam.
        ([judged("JUNK", 13)], Policy(), (Action.QUARANTINE, "spam", "Message refused: it looks like spam")),
        ([judged("JUNK", 13)], Policy(hold_score=15), (Action.JUNK, "spam", "")),
        ([judged("JUNK", 7)], Policy(), (Action.JUNK, "spam", "")),
        ([judged("CLEAN", 13)], Policy(), (Action.ACCEPT, "", "")),
        ([judged("SPAM", 16)], HOLD, (Action.QUARANTINE, "spam", "Message refused: it looks like spam")),
        # What the operator wants to see first is held and not refused; what is graver counts all the same.
        ([TYPE], HOLD, (Action.QUARANTINE, "policy", "Message refused: attachment type not allowed (a.exe)")),
        ([VIRUS], HOLD, (Action.QUARANTINE, "virus", "Message refused: virus found (EICAR-Test-Signature)")),
        ([TYPE, VIRUS], HOLD, (Action.QUARANTINE, "virus", "Message refused: virus found (EICAR-Test-Signature)")),
        ([replace(GTUBE, score=99)], HOLD, (Action.QUARANTINE, "spam", "Message refused: it looks like spam")),
        ([VIRUS, SHAPE], HOLD, (Action.REJECT, "policy", "Message refused: malformed, too many parts")),
        (
            [TYPE, DEAD],
            HOLD,
            (Action.TEMPFAIL, "fault", "The message could not be examined now, try again later (clamd)"),
        ),
        ([VIRUS, TYPE], Policy(), (Action.REJECT, "virus", "Message refused: virus found (EICAR-Test-Signature)")),
    ],
)
def test_what_is_held(findings: list[Finding], policy: Policy, said: tuple[int, str, str]) -> None:
    verdict = decide(findings, policy)
    assert (verdict.action, verdict.kind, verdict.text) == said
    assert settled(findings, policy) == (verdict.action in (Action.REJECT, Action.TEMPFAIL))
    if verdict.action == Action.QUARANTINE:
        # With these words its sender is refused, where it is not told 250.
        assert (verdict.code // 100, verdict.enhanced) == (5, "5.7.1")


@pytest.mark.parametrize(
    "settings",
    [
        {"hold": ("NO_SUCH_SYMBOL",)},
        {"junk_score": 7, "hold_score": 6},
        {"hold_score": 16, "reject_score": 15},
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(BadSettings):
        policy_of(Filter.model_validate(settings))
