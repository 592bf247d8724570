"""DATA and BDAT: what is a message, what is refused, and that what follows is still understood."""

from typing import Any

import pytest


async def _data(peer: Any, octets: bytes) -> str:
    assert (await peer.say(b"DATA\r\n")).startswith("354")
    heard: str = await peer.say(octets)
    return heard


async def test_a_message_over_the_limit_is_read_to_its_end_and_refused(meet: Any, door: Any) -> None:
    peer = meet(max_size=1000)
    await peer.enter()
    assert (await peer.say(b"DATA\r\n")).startswith("354")
    for _ in range(50):
        peer.feed(b"x" * 998 + b"\r\n")
    assert (await peer.say(b".\r\n")).startswith("552 5.3.4")
    assert (await peer.say(b"NOOP\r\n")).startswith("250")
    assert door.messages == []


@pytest.mark.parametrize("end", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\r\n\x00.\r\n"])
@pytest.mark.parametrize("policy", ["refuse", "keep"])
async def test_a_smuggled_message_is_never_taken(meet: Any, door: Any, end: bytes, policy: str) -> None:
    peer = meet(bare_newlines=policy)
    await peer.enter()
    smuggled = b"MAIL FROM:<ceo@posta.test>\r\nRCPT TO:<bob@posta.test>\r\nDATA\r\nSubject: pay\r\n"
    heard = await _data(peer, b"Subject: hi\r\n\r\nhello" + end + smuggled + b".\r\nNOOP\r\n")
    if b"\x00" in end:
        assert heard.startswith("250")
        assert smuggled in door.messages[0][1]
    else:
        assert heard == "550 5.6.0 The message has a bare <CR> or <LF>, lines end with <CR><LF>"
        assert door.messages == []
    assert await peer.hear() == ["250 2.0.0 OK"]


async def test_bare_newlines_are_refused_unless_kept(meet: Any, door: Any) -> None:
    for policy, code in (("refuse", "550 5.6.0"), ("keep", "250 2.0.0")):
        peer = meet(bare_newlines=policy)
        await peer.enter()
        assert (await _data(peer, b"a\nb\rc\r\n.\r\n")).startswith(code)
    assert [message for _, message in door.messages] == [b"a\nb\rc\r\n"]


async def test_bdat_in_chunks_with_everything_pipelined(peer: Any, door: Any) -> None:
    peer.feed(
        b"MAIL FROM:<> BODY=8BITMIME\r\nRCPT TO:<bob@posta.test>\r\n"
        b"BDAT 7\r\nhello\r\nBDAT 5\r\n.\r\n..BDAT 2 LAST\r\n\r\nQUIT\r\n"
    )
    heard = await peer.hear(6)
    assert heard[2:] == [
        "250 2.0.0 7 octets received",
        "250 2.0.0 5 octets received",
        "250 2.0.0 kept 14 octets",
        "221 2.0.0 Bye",
    ]
    # RFC 3030 2: no dot is special here.
    assert door.messages[0][1] == b"hello\r\n.\r\n..\r\n"


async def test_bdat_zero_last_ends_what_came_before(peer: Any, door: Any) -> None:
    await peer.say(b"MAIL FROM:<>\r\nRCPT TO:<bob@posta.test>\r\n", 2)
    await peer.say(b"BDAT 3\r\na\r\n")
    assert (await peer.say(b"BDAT 0 LAST\r\n")).startswith("250")
    assert door.messages[0][1] == b"a\r\n"


async def test_bdat_after_refused_recipients_swallows_its_octets(peer: Any, door: Any) -> None:
    door.bad_recipients = {"nobody@posta.test"}
    chunk = b"QUIT\r\nRSET\r\n"
    peer.feed(
        b"MAIL FROM:<>\r\nRCPT TO:<nobody@posta.test>\r\n"
        + b"BDAT %d\r\n%bBDAT %d LAST\r\n%b" % (len(chunk), chunk, len(chunk), chunk)
        + b"RSET\r\nNOOP\r\n"
    )
    assert [reply[:9] for reply in await peer.hear(6)] == [
        "250 2.1.0",
        "550 5.1.1",
        "554 5.5.1",
        "554 5.5.1",
        "250 2.0.0",
        "250 2.0.0",
    ]
    assert door.messages == []


async def test_bdat_over_the_limit_ends_the_transaction(meet: Any, door: Any) -> None:
    peer = meet(max_size=10)
    await peer.enter()
    peer.feed(b"BDAT 6\r\nabcd\r\nBDAT 6\r\nabcd\r\nBDAT 4 LAST\r\nab\r\nNOOP\r\n")
    assert [reply[:9] for reply in await peer.hear(4)] == ["250 2.0.0", "552 5.3.4", "503 5.5.1", "250 2.0.0"]
    assert door.messages == []


async def test_bdat_without_a_transaction(peer: Any) -> None:
    assert [r[:3] for r in (peer.feed(b"BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n"), await peer.hear(2))[1]] == ["503", "250"]


async def test_between_chunks_only_bdat_and_rset(peer: Any) -> None:
    await peer.say(b"MAIL FROM:<>\r\nRCPT TO:<bob@posta.test>\r\nBDAT 3\r\na\r\n", 3)
    for line in (b"DATA\r\n", b"RCPT TO:<c@posta.test>\r\n", b"MAIL FROM:<>\r\n"):
        assert (await peer.say(line)).startswith("503 5.5.1")
    assert (await peer.say(b"RSET\r\n")).startswith("250")
    assert (await peer.say(b"MAIL FROM:<>\r\n")).startswith("250")


@pytest.mark.parametrize("argument", [b"", b" x", b" -1", b" 5 FIRST", b" 5 LAST now", b" 1_0", b" " + b"9" * 21])
async def test_bdat_that_does_not_say_how_much_closes(peer: Any, argument: bytes) -> None:
    assert (await peer.say(b"BDAT" + argument + b"\r\nNOOP\r\n")).startswith("501 5.5.4")
    await peer.ended()


async def test_bare_newlines_are_refused_in_chunks_too(peer: Any, door: Any) -> None:
    await peer.say(b"MAIL FROM:<>\r\nRCPT TO:<bob@posta.test>\r\n", 2)
    assert (await peer.say(b"BDAT 6 LAST\r\na\n.\nb\n")).startswith("550 5.6.0")
    assert door.messages == []


async def test_a_large_message_in_many_pieces(peer: Any, door: Any) -> None:
    line = b"." + b"x" * 75 + b"\r\n"
    message = line * 20000
    await peer.say(b"MAIL FROM:<>\r\nRCPT TO:<bob@posta.test>\r\nDATA\r\n", 3)
    sent = (b"." + line) * 20000 + b".\r\n"
    for at in range(0, len(sent), 65537):
        peer.feed(sent[at : at + 65537])
    assert await peer.hear() == [f"250 2.0.0 kept {len(message)} octets"]
    assert door.messages[0][1] == message
