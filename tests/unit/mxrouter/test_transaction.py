"""A letter over one connection: every fork of the envelope, the message and the end."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.mxrouter.carriage import Addressee, Fate, Letter
from services.mxrouter.dialogue import Peer
from services.mxrouter.envelope import stuffed
from services.mxrouter.transaction import Delivery, Verdict, deliver
from tests.unit.mxrouter.script import MESSAGE, Paper, letter, peer

HOST = "mx.remote.test"
PIPELINING = peer("PIPELINING")
STUFFED = b"Subject: x\r\n\r\n..one\r\n...two\r\n.\r\n"


def go(paper: Paper, to: Peer, what: Letter, at_once: int = 50, reset: bool = False) -> Delivery:
    return paper.run(deliver(to, what, HOST, at_once, reset))


def brief(verdict: Verdict) -> tuple[str, int, str, bool]:
    outcome = verdict.outcome
    return outcome.fate.value, outcome.code, outcome.enhanced, verdict.elsewhere


def test_one_command_at_a_time() -> None:
    paper = Paper("250 ok", "250 ok", "354 go", "250 2.0.0 queued as 7")

    done = go(paper, Peer(), letter())

    assert paper.said == [b"MAIL FROM:<alice@posta.test>\r\n", b"RCPT TO:<carol@remote.test>\r\n", b"DATA\r\n", STUFFED]
    (verdict,) = done.verdicts
    assert brief(verdict) == ("sent", 250, "2.0.0", False)
    assert (verdict.outcome.text, verdict.outcome.host) == ("queued as 7", HOST)
    assert (done.usable, done.reset) == (True, False)


def test_pipelined_to_two_round_trips() -> None:
    paper = Paper("250 ok\r\n250 ok\r\n550 5.1.1 who?\r\n354 go", "250 ok")

    done = go(paper, PIPELINING, letter("carol@remote.test", "dave@remote.test"))

    assert paper.said == [
        b"MAIL FROM:<alice@posta.test>\r\nRCPT TO:<carol@remote.test>\r\nRCPT TO:<dave@remote.test>\r\nDATA\r\n",
        STUFFED,
    ]
    assert [brief(each)[:3] for each in done.verdicts] == [("sent", 250, "2.0.0"), ("failed", 550, "5.1.1")]


def test_nobody_accepted_and_the_server_wants_a_message_all_the_same() -> None:
    paper = Paper("250 ok\r\n550 who?\r\n354 go", "554 no recipients")

    done = go(paper, PIPELINING, letter())

    assert paper.said[1] == b".\r\n"
    assert [brief(each) for each in done.verdicts] == [("failed", 550, "5.0.0", False)]
    assert (done.usable, done.reset) == (True, False)


def test_what_is_left_open_is_reset_before_the_next_letter() -> None:
    paper = Paper("250 ok\r\n450 4.2.1 greylisted\r\n503 no recipients")
    done = go(paper, PIPELINING, letter())
    assert [brief(each) for each in done.verdicts] == [("later", 450, "4.2.1", False)]
    assert (done.usable, done.reset) == (True, True)

    paper = Paper("250 ok\r\n250 ok\r\n250 ok\r\n354 go", "250 ok")
    done = go(paper, PIPELINING, letter(), reset=True)
    assert paper.said[0].startswith(b"RSET\r\nMAIL FROM:")
    assert (done.verdicts[0].outcome.fate, done.reset) == (Fate.SENT, False)

    paper = Paper("250 ok", "250 ok", "250 ok", "354 go", "250 ok")
    assert go(paper, Peer(), letter(), reset=True).verdicts[0].outcome.fate is Fate.SENT
    assert paper.said[0] == b"RSET\r\n"


def test_a_server_that_refuses_reset_is_left() -> None:
    for to in (PIPELINING, Peer()):
        done = go(Paper("500 what?\r\n250 ok\r\n250 ok\r\n354 go"), to, letter(), reset=True)
        assert [brief(each) for each in done.verdicts] == [("later", 451, "4.4.2", True)]
        assert not done.usable


def test_chunking() -> None:
    paper = Paper("250 ok\r\n250 ok", "250 ok")

    done = go(paper, peer("PIPELINING", "CHUNKING", "SIZE"), letter())

    assert paper.said[1] == b"BDAT %d LAST\r\n" % len(MESSAGE) + MESSAGE
    assert done.verdicts[0].outcome.fate is Fate.SENT
    assert not done.reset

    done = go(Paper("250 ok\r\n250 ok", "552 5.2.2 full"), peer("PIPELINING", "CHUNKING"), letter())
    assert brief(done.verdicts[0])[:3] == ("failed", 552, "5.2.2")
    assert done.reset

    paper = Paper("250 ok\r\n550 who?")
    assert go(paper, peer("PIPELINING", "CHUNKING"), letter()).reset
    assert len(paper.said) == 1


@pytest.mark.parametrize("to", [Peer(), PIPELINING, peer("PIPELINING", "CHUNKING"), peer("CHUNKING")])
@pytest.mark.parametrize(
    ("said", "verdict", "usable"),
    [
        ("451 4.3.1 no space", ("later", 451, "4.3.1", True), True),
        ("550 5.7.1 not from you", ("failed", 550, "5.7.1", False), True),
        ("421 4.3.2 closing", ("later", 421, "4.3.2", True), False),
    ],
)
def test_refused_at_mail(to: Peer, said: str, verdict: tuple[object, ...], usable: bool) -> None:
    done = (
        go(Paper(f"{said}\r\n503 no\r\n503 no"), to, letter())
        if to.offers("PIPELINING")
        else go(Paper(said), to, letter())
    )

    assert [brief(each) for each in done.verdicts] == [verdict]
    assert done.usable is usable
    assert not done.reset


def test_mails_last_word_counts_when_the_server_hangs_up_on_it() -> None:
    done = go(Paper("554 5.7.1 listed", None), PIPELINING, letter("a@b.test", "c@b.test"))

    assert [brief(each) for each in done.verdicts] == [("failed", 554, "5.7.1", False)] * 2
    assert not done.usable


def test_closing_between_recipients() -> None:
    said = ["250 ok", "250 ok", "550 5.1.1 who?", "421 closing"]
    for paper, to in ((Paper(*said), Peer()), (Paper("\r\n".join(said), None), PIPELINING)):
        done = go(paper, to, letter("a@b.test", "c@b.test", "d@b.test", "e@b.test"))
        assert [brief(each) for each in done.verdicts] == [
            ("later", 421, "4.0.0", True),
            ("failed", 550, "5.1.1", False),
            ("later", 421, "4.0.0", True),
            ("later", 421, "4.0.0", True),
        ]
        assert not done.usable


def test_refused_at_data() -> None:
    for paper, to in (
        (Paper("250 ok", "250 ok", "451 4.7.1 later"), Peer()),
        (Paper("250 a\r\n250 b\r\n451 4.7.1 later"), PIPELINING),
    ):
        done = go(paper, to, letter())
        assert [brief(each) for each in done.verdicts] == [("later", 451, "4.7.1", False)]
        assert (done.usable, done.reset) == (True, True)


def test_data_answered_as_if_it_were_done() -> None:
    done = go(Paper("250 ok", "250 ok", "250 fine"), Peer(), letter())

    assert [brief(each)[:2] for each in done.verdicts] == [("later", 250)]
    assert not done.usable


@pytest.mark.parametrize(
    ("said", "fate"), [("552 5.2.2 full", Fate.FAILED), ("451 4.2.0 busy", Fate.LATER), ("354 what?", Fate.LATER)]
)
def test_refused_after_the_message(said: str, fate: Fate) -> None:
    done = go(Paper("250 ok\r\n250 ok\r\n250 ok\r\n354 go", said), PIPELINING, letter("a@b.test", "c@b.test"))

    assert [each.outcome.fate for each in done.verdicts] == [fate] * 2
    assert not any(each.elsewhere for each in done.verdicts)


def test_a_connection_that_dies_after_the_last_octet() -> None:
    done = go(Paper("250 ok\r\n250 ok\r\n354 go", None), PIPELINING, letter())

    assert [brief(each) for each in done.verdicts] == [("later", 451, "4.4.2", False)]
    assert done.verdicts[0].outcome.text == (
        "the connection was lost (waiting for the reply to the message); it may have been taken, and may arrive twice"
    )
    assert not done.usable


def test_a_connection_that_dies_before() -> None:
    for said in (["250 ok", None], ["250 ok", "250 ok", None]):
        done = go(Paper(*said), Peer(), letter())
        assert [brief(each) for each in done.verdicts] == [("later", 451, "4.4.2", True)]
        assert done.began
    assert not go(Paper(None), Peer(), letter()).began


def test_more_recipients_than_a_transaction_takes() -> None:
    five = [f"r{number}@b.test" for number in range(5)]
    ok = "250 ok\r\n250 ok\r\n250 ok\r\n354 go"
    paper = Paper(ok, "250 a", ok, "250 b", "250 ok\r\n250 ok\r\n354 go", "250 c")

    done = go(paper, peer("PIPELINING", "LIMITS RCPTMAX=2"), letter(*five))

    assert [each.outcome.text for each in done.verdicts] == ["a", "a", "b", "b", "c"]
    assert done.transactions == 3


def test_those_who_were_too_many_come_in_the_next() -> None:
    paper = Paper("250 ok\r\n250 ok\r\n452 4.5.3 too many\r\n354 go", "250 a", "250 ok\r\n250 ok\r\n354 go", "250 b")
    done = go(paper, PIPELINING, letter("a@b.test", "c@b.test"))
    assert [each.outcome.text for each in done.verdicts] == ["a", "b"]

    # About the mailbox, or with nobody accepted before: its own word.
    done = go(
        Paper("250 ok\r\n250 ok\r\n452 4.2.2 full\r\n354 go", "250 a"), PIPELINING, letter("a@b.test", "c@b.test")
    )
    assert [each.outcome.enhanced for each in done.verdicts] == ["2.0.0", "4.2.2"]
    done = go(Paper("250 ok\r\n452 no\r\n503 no"), PIPELINING, letter())
    assert [brief(each)[:2] for each in done.verdicts] == [("later", 452)]


def test_dsn_parameters_where_the_server_knows_them() -> None:
    addressees = (Addressee("c@b.test", "SUCCESS,DELAY", "rfc822;carol+x=y@b.test"), Addressee("d@b.test"))
    what = Letter("0", "", addressees, MESSAGE, ret="HDRS", envid="QQ 31+")
    answers = ["250 ok\r\n250 ok\r\n250 ok\r\n354 go", "250 ok"]

    paper = Paper(*answers)
    done = go(paper, peer("PIPELINING", "DSN"), what)
    assert paper.said[0] == (
        b"MAIL FROM:<> RET=HDRS ENVID=QQ+2031+2B\r\n"
        b"RCPT TO:<c@b.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;carol+2Bx+3Dy@b.test\r\nRCPT TO:<d@b.test>\r\nDATA\r\n"
    )
    assert all(each.outcome.relayed_dsn for each in done.verdicts)

    paper = Paper(*answers)
    done = go(paper, PIPELINING, what)
    assert paper.said[0].startswith(b"MAIL FROM:<>\r\nRCPT TO:<c@b.test>\r\n")
    assert not any(each.outcome.relayed_dsn for each in done.verdicts)


def test_an_original_recipient_outside_ascii() -> None:
    addressees = (Addressee("c@b.test", None, "utf-8;jörg+a@b.test"),)
    for to, line in (
        (peer("PIPELINING", "DSN"), "ORCPT=utf-8;j\\x{F6}rg+2Ba@b.test\r\n"),
        (peer("PIPELINING", "DSN", "SMTPUTF8"), "ORCPT=utf-8;jörg+2Ba@b.test\r\n"),
    ):
        paper = Paper("250 ok\r\n250 ok\r\n354 go", "250 ok")
        utf8 = to.offers("SMTPUTF8")
        go(paper, to, Letter("0", "ü@posta.test" if utf8 else "a@posta.test", addressees, MESSAGE, smtputf8=utf8))
        assert line.encode() in paper.said[0]


def test_size_and_eight_bits() -> None:
    eight = "Subject: x\r\n\r\ngrüße\r\n".encode()
    ok = ["250 ok\r\n250 ok\r\n354 go", "250 ok"]
    for to, line in (
        (peer("PIPELINING", "SIZE 100", "8BITMIME"), b" SIZE=23 BODY=8BITMIME\r\n"),
        (PIPELINING, b"\r\n"),
    ):
        paper = Paper(*ok)
        done = go(paper, to, letter(octets=eight))
        assert paper.said[0].startswith(b"MAIL FROM:<alice@posta.test>" + line)
        assert paper.said[1] == eight + b".\r\n", "the octets are sent as they are, whatever was offered"
        assert done.verdicts[0].outcome.fate is Fate.SENT

    paper = Paper()
    done = go(paper, peer("SIZE 22"), letter(octets=eight))
    assert [brief(each) for each in done.verdicts] == [("failed", 552, "5.3.4", False)]
    assert paper.said == []


def test_smtputf8() -> None:
    utf8 = peer("PIPELINING", "SMTPUTF8")
    ok = ["250 ok\r\n250 ok\r\n354 go", "250 ok"]
    for what in (
        letter("käthe@b.test"),
        letter(sender="jürgen@posta.test"),
        letter(octets="Subject: ü\r\n\r\n".encode(), smtputf8=True),
    ):
        paper = Paper(*ok)
        assert go(paper, utf8, what).verdicts[0].outcome.fate is Fate.SENT
        assert b" SMTPUTF8\r\n" in paper.said[0]
        refused = go(Paper(), PIPELINING, what).verdicts[0]
        assert (refused.outcome.fate, refused.outcome.enhanced, refused.elsewhere) == (Fate.FAILED, "5.6.7", True)

    # Handed in with SMTPUTF8 and in need of it nowhere: it goes anywhere.
    assert go(Paper(*ok), PIPELINING, letter(smtputf8=True)).verdicts[0].outcome.fate is Fate.SENT
    # One recipient that needs it does not keep the others from theirs.
    mixed = go(Paper(*ok), PIPELINING, letter("käthe@b.test", "c@b.test"))
    assert [each.outcome.fate for each in mixed.verdicts] == [Fate.FAILED, Fate.SENT]


def test_requiretls() -> None:
    paper = Paper("250 ok\r\n250 ok\r\n354 go", "250 ok")
    go(paper, peer("PIPELINING", "REQUIRETLS"), letter(requiretls=True))
    assert paper.said[0].startswith(b"MAIL FROM:<alice@posta.test> REQUIRETLS\r\n")

    done = go(Paper(), PIPELINING, letter(requiretls=True))
    assert [brief(each) for each in done.verdicts] == [("failed", 550, "5.7.30", True)]


@pytest.mark.parametrize("evil", ["x>\r\nRCPT TO:<y@z.test", "a\nb@c.test", "a\0@c.test"])
def test_no_command_is_smuggled_by_an_address(evil: str) -> None:
    paper = Paper()
    assert go(paper, PIPELINING, letter(evil)).verdicts[0].outcome.enhanced == "5.1.3"
    assert go(paper, PIPELINING, letter(sender=evil)).verdicts[0].outcome.enhanced == "5.1.7"
    assert paper.said == []

    odd = (Addressee("c@b.test", "NEVER\r\nDATA", "rfc822; x\r\ny"), Addressee("d@b.test", "", "no kind"))
    paper = Paper("250 ok\r\n250 ok\r\n250 ok\r\n354 go", "250 ok")
    go(paper, peer("PIPELINING", "DSN"), Letter("0", "", odd, MESSAGE, envid="a\r\nb", ret="FULL\r\n"))
    assert paper.said[0] == (
        b"MAIL FROM:<> ENVID=a+0D+0Ab\r\nRCPT TO:<c@b.test> ORCPT=rfc822;+20x+0D+0Ay\r\nRCPT TO:<d@b.test>\r\nDATA\r\n"
    )


@pytest.mark.parametrize(
    ("octets", "wire"),
    [
        (b"", b".\r\n"),
        (b"a\r\n", b"a\r\n.\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b".\r\n.a\r\n", b"..\r\n..a\r\n.\r\n"),
        (b"a\n.\nb\r.\r\nc\r\n", b"a\r\n..\r\nb\r\n..\r\nc\r\n.\r\n"),
        (b"a\r", b"a\r\n.\r\n"),
    ],
)
def test_dots(octets: bytes, wire: bytes) -> None:
    assert b"".join(stuffed(octets)) == wire


@given(st.lists(st.sampled_from([b"\r", b"\n", b".", b"a", b"\r\n"])).map(b"".join))
def test_a_message_never_ends_itself(octets: bytes) -> None:
    wire = b"".join(stuffed(octets))

    assert wire.endswith(b".\r\n")
    body = b"\r\n" + wire[:-3]
    assert b"\r\n.\r\n" not in body
    assert b"\n" not in body.replace(b"\r\n", b"")
    assert b"\r" not in body.replace(b"\r\n", b"")


_SAID = [
    "250 ok",
    "250-a\r\n250 b",
    "354 go",
    "421 bye",
    "450 4.2.1 x",
    "452 many",
    "503 no",
    "550 5.1.1 x",
    "what?",
    "250",
]
_ANSWERS = st.lists(st.sampled_from([*_SAID, None]), max_size=14)
_WORDS = ["PIPELINING", "CHUNKING", "DSN", "SIZE 5000", "8BITMIME", "LIMITS RCPTMAX=1"]
_KEYWORDS = st.lists(st.sampled_from(_WORDS), unique=True)


@given(_ANSWERS, _KEYWORDS, st.integers(1, 4), st.booleans(), st.lists(st.integers(0, 200)))
def test_whatever_a_server_says_everyone_has_one_outcome(
    answers: list[str | None], keywords: list[str], recipients: int, reset: bool, edges: list[int]
) -> None:
    what = letter(*(f"r{number}@b.test" for number in range(recipients)))

    def cut(octets: bytes) -> list[bytes]:
        places = sorted({0, len(octets), *(edge % (len(octets) + 1) for edge in edges)})
        return [octets[begin:end] for begin, end in pairwise(places)]

    whole = Paper(*answers)
    done = go(whole, peer(*keywords), what, 2, reset)
    pieces = Paper(*answers, cut=cut)

    assert len(done.verdicts) == recipients
    assert go(pieces, peer(*keywords), what, 2, reset) == done
    assert pieces.said == whole.said
    for verdict in done.verdicts:
        assert not (verdict.elsewhere and verdict.outcome.fate is Fate.SENT)
    if any(verdict.outcome.fate is Fate.SENT for verdict in done.verdicts):
        assert any(MESSAGE in said or STUFFED in said for said in whole.said)
