"""Conversations: greeting, EHLO, transactions, pipelining, limits, errors, and how each of them ends."""

import re
from typing import Any

import pytest
from structlog.testing import capture_logs

from services.core.smtp import replies
from services.core.smtp.hooks import Refused, TryLater
from services.core.smtp.replies import Reply


async def test_a_message_from_greeting_to_goodbye(meet: Any, door: Any) -> None:
    peer = meet()
    assert await peer.hear() == ["220 mx.posta.test ESMTP Posta"]
    ehlo = await peer.say(b"EHLO client.example\r\n")
    assert ehlo.splitlines() == [
        "250-mx.posta.test",
        "250-PIPELINING",
        "250-SIZE 52428800",
        "250-8BITMIME",
        "250-SMTPUTF8",
        "250-CHUNKING",
        "250-DSN",
        "250-ENHANCEDSTATUSCODES",
        "250-LIMITS RCPTMAX=1000",
        "250-AUTH PLAIN LOGIN",
        "250 HELP",
    ]
    assert await peer.say(b"MAIL FROM:<alice@example.org> SIZE=9\r\n") == "250 2.1.0 Sender OK"
    assert await peer.say(b"RCPT TO:<bob@posta.test> NOTIFY=NEVER\r\n") == "250 2.1.5 Recipient OK"
    assert await peer.say(b"DATA\r\n") == "354 End data with <CR><LF>.<CR><LF>"
    assert await peer.say(b"hello\r\n..\r\n.\r\n") == "250 2.0.0 kept 10 octets"
    assert await peer.say(b"QUIT\r\n") == "221 2.0.0 Bye"
    await peer.ended()
    transaction, message = door.messages[0]
    assert message == b"hello\r\n.\r\n"
    assert (transaction.sender.address, transaction.size) == ("alice@example.org", 9)
    assert [r.address for r in transaction.recipients] == ["bob@posta.test"]
    assert door.disconnected == 1


async def test_replies_to_pipelined_commands_leave_in_one_write(peer: Any) -> None:
    before = len(peer.pipe.writes)
    group = b"RSET\r\nMAIL FROM:<>\r\nRCPT TO:<bob@posta.test>\r\nRCPT TO:<carol@posta.test>\r\nDATA\r\n"
    peer.feed(group)
    assert [reply[:3] for reply in await peer.hear(5)] == ["250", "250", "250", "250", "354"]
    assert len(peer.pipe.writes) == before + 1


async def test_octet_by_octet_is_the_same_conversation(peer: Any, door: Any) -> None:
    for octet in b"MAIL FROM:<>\r\nRCPT TO:<bob@posta.test>\r\nDATA\r\na\r\n.\r\nQUIT\r\n":
        peer.feed(bytes([octet]))
    assert [reply[:3] for reply in await peer.hear(5)] == ["250", "250", "354", "250", "221"]
    assert door.messages[0][1] == b"a\r\n"


_ORDER = [
    (b"MAIL FROM:<a@b.test>", replies.HELO_FIRST),
    (b"RCPT TO:<a@b.test>", replies.MAIL_FIRST),
    (b"DATA", replies.MAIL_FIRST),
    (b"AUTH PLAIN", replies.HELO_FIRST),
    (b"EHLO", replies.SYNTAX),
    (b"RSET now", replies.SYNTAX),
    (b"QUIT now", replies.SYNTAX),
    (b"NOOP whatever", replies.OK),
    (b"VRFY bob", replies.CANNOT_VERIFY),
    (b"VRFY", replies.SYNTAX),
    (b"EXPN list", replies.NOT_IMPLEMENTED),
    (b"HELP", replies.HELP),
    (b"help mail", replies.HELP),
    (b"STARTTLS", replies.NO_TLS),
    (b"WHAT", replies.UNKNOWN_COMMAND),
    (b"", replies.UNKNOWN_COMMAND),
    (b"GET / HTTP/1.1", replies.UNKNOWN_COMMAND),
    (b"NOOP \x00", replies.NOT_TEXT),
    (b"\xff\xfe", replies.NOT_TEXT),
    (b"NOOP " + b"x" * 506, replies.LINE_TOO_LONG),
    (b"x" * 20000, replies.LINE_TOO_LONG),
]


@pytest.mark.parametrize(("line", "reply"), _ORDER)
async def test_commands_out_of_order_or_out_of_form(meet: Any, line: bytes, reply: Reply) -> None:
    peer = meet()
    await peer.hear()
    heard = await peer.say(line + b"\r\n")
    assert heard.startswith(f"{reply.code} {reply.enhanced} ")
    assert await peer.say(b"NOOP\r\n") == "250 2.0.0 OK"


async def test_a_line_of_512_octets_is_heard(peer: Any) -> None:
    assert await peer.say(b"NOOP " + b"x" * 505 + b"\r\n") == "250 2.0.0 OK"


async def test_a_line_that_ends_with_lf_alone_is_refused_not_waited_for(peer: Any) -> None:
    assert await peer.say(b"NOOP\n") == "500 5.5.2 A line ends with <CR><LF>"


async def test_rset_and_ehlo_end_the_transaction(peer: Any) -> None:
    for command in (b"RSET\r\n", b"EHLO again.example\r\n"):
        await peer.say(b"MAIL FROM:<>\r\n")
        assert (await peer.say(b"MAIL FROM:<>\r\n")).startswith("503 5.5.1")
        await peer.say(command)
        assert (await peer.say(b"RCPT TO:<bob@posta.test>\r\n")).startswith("503 5.5.1")


async def test_helo_is_plain_smtp(meet: Any, door: Any) -> None:
    peer = meet()
    await peer.hear()
    assert await peer.say(b"HELO old.example\r\n") == "250 mx.posta.test"
    assert door.names == [("old.example", False)]
    assert peer.session.protocol == "SMTP"
    assert (await peer.say(b"MAIL FROM:<> SIZE=1\r\n")).startswith("501 5.5.4")
    assert (await peer.say(b"AUTH PLAIN\r\n")).startswith("503")


async def test_hooks_refuse_by_reply_and_by_exception(peer: Any, door: Any) -> None:
    door.answers["mail"] = Refused(replies.SENDER_NOT_YOURS)
    assert (await peer.say(b"MAIL FROM:<a@b.test>\r\n")).startswith("553 5.7.1")
    assert peer.session.transaction is None
    door.answers["mail"] = TryLater(replies.DIRECTORY_GONE)
    assert (await peer.say(b"MAIL FROM:<a@b.test>\r\n")).startswith("451 4.3.0")
    door.answers.clear()
    door.bad_recipients = {"nobody@posta.test"}
    await peer.say(b"MAIL FROM:<a@b.test>\r\n")
    assert (await peer.say(b"RCPT TO:<nobody@posta.test>\r\n")).startswith("550 5.1.1")
    assert (await peer.say(b"DATA\r\n")) == "554 5.5.1 No valid recipients"
    assert (await peer.say(b"RCPT TO:<bob@posta.test>\r\n")).startswith("250 2.1.5")
    door.answers["data"] = replies.NOT_ACCEPTED.saying("A virus was found", "It is called EICAR\r\n250 OK")
    assert (await peer.say(b"DATA\r\n")).startswith("354")
    assert await peer.say(b"x\r\n.\r\n") == "550-5.7.1 A virus was found\n550 5.7.1 It is called EICAR??250 OK"
    assert peer.session.transaction is None


async def test_an_error_of_ours_is_logged_and_answered_451(peer: Any, door: Any) -> None:
    door.answers["rcpt"] = ZeroDivisionError("oops")
    await peer.say(b"MAIL FROM:<a@b.test>\r\n")
    with capture_logs() as logs:
        heard = await peer.say(b"RCPT TO:<bob@posta.test>\r\n")
    assert heard == "451 4.3.0 Something went wrong here, try again later"
    assert [(entry["doing"], entry["log_level"]) for entry in logs] == [("RCPT", "error")]
    door.answers.clear()
    assert (await peer.say(b"RCPT TO:<bob@posta.test>\r\n")).startswith("250")


async def test_refused_at_the_greeting_with_554_only_quit_is_left(meet: Any, door: Any) -> None:
    door.answers["connect"] = replies.NO_SERVICE
    peer = meet()
    assert (await peer.hear())[0].startswith("554 5.7.1")
    assert (await peer.say(b"EHLO client.example\r\n")).startswith("503 5.5.1")
    assert (await peer.say(b"quit\r\n")).startswith("221")
    await peer.ended()
    assert door.disconnected == 1


async def test_421_closes_whoever_says_it(meet: Any, door: Any) -> None:
    door.answers["connect"] = TryLater(replies.TOO_MANY_CONNECTIONS)
    peer = meet()
    assert (await peer.hear())[0].startswith("421 4.7.0")
    await peer.ended()
    door.answers = {"mail": replies.SHUTTING_DOWN}
    peer = meet()
    await peer.begin()
    assert (await peer.say(b"MAIL FROM:<>\r\n")).startswith("421 4.3.2")
    await peer.ended()


async def test_helo_may_be_refused_and_tried_again(meet: Any, door: Any) -> None:
    door.answers["helo"] = replies.NO_SERVICE
    peer = meet()
    await peer.hear()
    assert (await peer.say(b"EHLO localhost\r\n")).startswith("554")
    assert (await peer.say(b"MAIL FROM:<>\r\n")).startswith("503")
    door.answers.clear()
    assert (await peer.say(b"EHLO client.example\r\n")).startswith("250-")


async def test_too_many_recipients(meet: Any) -> None:
    peer = meet(max_recipients=2)
    await peer.begin()
    await peer.say(b"MAIL FROM:<>\r\nRCPT TO:<a@posta.test>\r\nRCPT TO:<b@posta.test>\r\n", 3)
    assert (await peer.say(b"RCPT TO:<c@posta.test>\r\n")).startswith("452 4.5.3")
    assert (await peer.say(b"DATA\r\n")).startswith("354")


async def test_too_many_errors(meet: Any) -> None:
    peer = meet(max_errors=3)
    await peer.begin()
    peer.feed(b"FOO\r\n" * 10)
    assert [reply[:9] for reply in await peer.hear(5)] == ["500 5.5.2"] * 4 + ["421 4.7.0"]
    await peer.ended()


async def test_a_kept_message_pardons_errors(meet: Any) -> None:
    peer = meet(max_errors=1)
    await peer.enter()
    for _ in range(3):
        assert (await peer.say(b"FOO\r\n")).startswith("500")
        await peer.say(b"RSET\r\nMAIL FROM:<>\r\nRCPT TO:<bob@posta.test>\r\nDATA\r\n", 4)
        assert (await peer.say(b"x\r\n.\r\n")).startswith("250")


async def test_where_tls_is_required_little_else_is_heard(meet: Any) -> None:
    peer = meet(require_tls=True)
    await peer.begin()
    for line in (b"MAIL FROM:<>\r\n", b"RCPT TO:<a@b.test>\r\n", b"DATA\r\n", b"VRFY a\r\n"):
        assert await peer.say(line) == "530 5.7.0 Must issue a STARTTLS command first"
    assert (await peer.say(b"NOOP\r\n")).startswith("250")
    assert (await peer.say(b"BDAT 4 LAST\r\nQUITNOOP\r\n", 2)).startswith("250")


async def test_where_auth_is_required_mail_waits_for_it(meet: Any) -> None:
    peer = meet(require_auth=True)
    await peer.begin()
    assert await peer.say(b"MAIL FROM:<>\r\n") == "530 5.7.0 Authentication required"


async def test_smtputf8_addresses(peer: Any, door: Any) -> None:
    assert (await peer.say("MAIL FROM:<jürgen@example.org>\r\n".encode())).startswith("553 5.6.7")
    await peer.say("MAIL FROM:<jürgen@example.org> SMTPUTF8\r\n".encode())
    assert peer.session.protocol == "UTF8SMTP"
    assert (await peer.say("RCPT TO:<мир@posta.test>\r\n".encode())).startswith("250")
    assert peer.session.transaction.recipients[0].address == "мир@posta.test"


async def test_size_is_refused_before_the_message_is_sent(meet: Any) -> None:
    peer = meet(max_size=1000)
    await peer.begin()
    assert (await peer.say(b"MAIL FROM:<> SIZE=1001\r\n")).startswith("552 5.3.4")
    assert (await peer.say(b"MAIL FROM:<> SIZE=1000\r\n")).startswith("250")


def test_every_reply_of_the_table_can_be_read() -> None:
    table = [reply for reply in vars(replies).values() if isinstance(reply, Reply)]
    assert len(table) > 50
    for reply in table:
        assert re.fullmatch(rb"\d{3} (\d\.\d\.\d{1,2} )?[ -~]+\r\n", reply.wire)
        assert bool(reply.enhanced) == (reply not in (replies.GREETING, replies.HELLO, replies.START_INPUT))
    with pytest.raises(ValueError, match="contradict"):
        Reply(550, "4.0.0", ("no",))
