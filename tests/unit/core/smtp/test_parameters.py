"""MAIL and RCPT arguments as clients write them, rightly and wrongly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.smtp import replies
from services.core.smtp.hooks import Refused
from services.core.smtp.parameters import parse_mail, parse_rcpt
from services.core.smtp.replies import Reply
from services.core.smtp.session import Recipient, Sender


def mail(argument: str, esmtp: bool = True) -> Sender:
    return parse_mail(argument, esmtp, 1000)


def rcpt(argument: str, esmtp: bool = True, smtputf8: bool = False) -> Recipient:
    return parse_rcpt(argument, esmtp, smtputf8, "posta.test")


def test_the_null_sender_is_empty() -> None:
    sender = mail("FROM:<> BODY=8BITMIME")
    assert (sender.mailbox, sender.address) == (None, "")


def test_every_parameter_of_mail() -> None:
    sender = mail(
        "from:<Alice@Example.ORG> size=1000 Body=8bitmime SMTPUTF8 RET=hdrs ENVID=a+2Bb+3Dc AUTH=bob+40x.test"
    )
    assert (sender.address, sender.size, sender.body, sender.smtputf8) == ("Alice@example.org", 1000, "8BITMIME", True)
    assert (sender.ret, sender.envid, sender.auth) == ("HDRS", "a+b=c", "bob@x.test")


def test_every_parameter_of_rcpt() -> None:
    recipient = rcpt("TO:<bob+tag@posta.test> NOTIFY=success,DELAY ORCPT=rfc822;Bob+2Btag@posta.test")
    assert recipient.address == "bob+tag@posta.test"
    assert recipient.notify == {"SUCCESS", "DELAY"}
    assert recipient.orcpt == "rfc822;Bob+tag@posta.test"
    assert rcpt("TO:<bob@posta.test> NOTIFY=NEVER").notify == {"NEVER"}


def test_postmaster_needs_no_domain() -> None:
    assert rcpt("TO:<Postmaster>").address == "postmaster@posta.test"


def test_a_space_after_the_colon_is_forgiven() -> None:
    assert mail("FROM: <a@b.test>").address == "a@b.test"


_MAIL_FAULTS = [
    ("<a@b.test>", replies.SYNTAX),
    ("FROM:a@b.test", replies.BAD_SENDER),
    ("FROM:<a@>", replies.BAD_SENDER),
    ("FROM:<a@b.test>SIZE=1", replies.BAD_PARAMETER),
    ("FROM:<a@b.test> SIZE", replies.BAD_PARAMETER),
    ("FROM:<a@b.test> SIZE=", replies.BAD_PARAMETER),
    ("FROM:<a@b.test> SIZE=-1", replies.BAD_PARAMETER),
    ("FROM:<a@b.test> SIZE=\u0663", replies.BAD_PARAMETER),
    ("FROM:<a@b.test> SIZE=1 SIZE=1", replies.BAD_PARAMETER),
    ("FROM:<a@b.test> SIZE=1001", replies.MESSAGE_TOO_BIG),
    ("FROM:<a@b.test> BODY=9BIT", replies.BAD_PARAMETER),
    ("FROM:<a@b.test> BODY=BINARYMIME", replies.UNKNOWN_PARAMETER),
    ("FROM:<a@b.test> RET=ALL", replies.BAD_PARAMETER),
    ("FROM:<a@b.test> ENVID=" + "x" * 101, replies.BAD_PARAMETER),
    ("FROM:<a@b.test> ENVID=a+0Ab", replies.BAD_PARAMETER),
    ("FROM:<a@b.test> ENVID=a+zz", replies.BAD_PARAMETER),
    ("FROM:<a@b.test> SMTPUTF8=yes", replies.BAD_PARAMETER),
    ("FROM:<a@b.test> FOO=bar", replies.UNKNOWN_PARAMETER),
    ("FROM:<a@b.test> NOTIFY=NEVER", replies.UNKNOWN_PARAMETER),
    ("FROM:<ä@b.test>", replies.NEEDS_SMTPUTF8),
    ("FROM:<a@bücher.test>", replies.NEEDS_SMTPUTF8),
]
_RCPT_FAULTS = [
    ("<a@b.test>", replies.SYNTAX),
    ("TO:<>", replies.BAD_RECIPIENT),
    ("TO:<a@b.test> NOTIFY=NEVER,DELAY", replies.BAD_PARAMETER),
    ("TO:<a@b.test> NOTIFY=", replies.BAD_PARAMETER),
    ("TO:<a@b.test> ORCPT=a@b.test", replies.BAD_PARAMETER),
    ("TO:<a@b.test> ORCPT=rfc822;a+0D+0AX:+20y", replies.BAD_PARAMETER),
    ("TO:<a@b.test> SIZE=1", replies.UNKNOWN_PARAMETER),
    ("TO:<ä@b.test>", replies.NEEDS_SMTPUTF8),
]


@pytest.mark.parametrize(("argument", "reply"), _MAIL_FAULTS)
def test_mail_faults(argument: str, reply: Reply) -> None:
    with pytest.raises(Refused) as refused:
        mail(argument)
    assert (refused.value.reply.code, refused.value.reply.enhanced) == (reply.code, reply.enhanced)


@pytest.mark.parametrize(("argument", "reply"), _RCPT_FAULTS)
def test_rcpt_faults(argument: str, reply: Reply) -> None:
    with pytest.raises(Refused) as refused:
        rcpt(argument)
    assert (refused.value.reply.code, refused.value.reply.enhanced) == (reply.code, reply.enhanced)


def test_helo_has_no_parameters() -> None:
    with pytest.raises(Refused):
        mail("FROM:<a@b.test> SIZE=1", esmtp=False)


def test_smtputf8_lets_other_scripts_in() -> None:
    assert mail("FROM:<jürgen@bücher.test> SMTPUTF8").address == "jürgen@xn--bcher-kva.test"
    assert rcpt("TO:<мир@b.test> ORCPT=utf-8;мир@b.test", smtputf8=True).orcpt == "utf-8;мир@b.test"


@given(st.text())
def test_whatever_follows_is_taken_or_refused(text: str) -> None:
    for parse in (mail, rcpt):
        for keyword in ("", "FROM:", "TO:", "FROM:<a@b.test> ", "TO:<a@b.test> ORCPT="):
            reply = None
            try:
                parse(keyword + text)
            except Refused as refused:
                reply = refused.reply
            assert reply is None or (reply.permanent and reply.wire.count(b"\r\n") == 1)
