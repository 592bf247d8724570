"""The client's first words: who is there, and what can it do."""

from __future__ import annotations

from base64 import b64encode
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.mxrouter.dialogue import (
    Act,
    Broken,
    Declined,
    Exchange,
    Peer,
    Stage,
    farewell,
    greeting,
    hello,
    login,
    start_tls,
)
from services.mxrouter.heard import Replies
from tests.unit.mxrouter.script import Paper, peer


def test_what_a_server_offers() -> None:
    paper = Paper(
        "250-mx.remote.test greets you\r\n250-size 1000\r\n250-AUTH=LOGIN\r\n250-AUTH LOGIN\r\n"
        "250-LIMITS RCPTMAX=20 MAILMAX=5 RCPTDOMAINMAX=x\r\n250-CHUNKING\r\n250 PIPELINING"
    )

    found = paper.run(hello("mx.posta.test", without={"CHUNKING"}))

    assert paper.said == [b"EHLO mx.posta.test\r\n"]
    assert found.largest == 1000
    assert found.mechanisms == {"LOGIN"}
    assert (found.limit("RCPTMAX"), found.limit("MAILMAX"), found.limit("RCPTDOMAINMAX")) == (20, 5, None)
    assert found.offers("PIPELINING")
    assert not found.offers("CHUNKING")


@pytest.mark.parametrize("line", ["SIZE", "SIZE 0", "SIZE x", "SIZE " + "9" * 30, "SIZE -1"])
def test_a_size_that_says_nothing(line: str) -> None:
    assert Paper(f"250-x\r\n250 {line}").run(hello("x")).largest is None


def test_a_server_of_before_1995() -> None:
    paper = Paper("502 what?", "250 hello")

    assert paper.run(hello("mx.posta.test")) == Peer()
    assert paper.said == [b"EHLO mx.posta.test\r\n", b"HELO mx.posta.test\r\n"]


@pytest.mark.parametrize("answers", [("421 busy",), ("502 what?", "550 go away"), ("354 odd",), ("554 no",)])
def test_a_server_that_does_not_want_us(answers: tuple[str, ...]) -> None:
    with pytest.raises(Declined) as caught:
        Paper(*answers).run(hello("x"))
    assert caught.value.stage is Stage.EHLO


def test_a_greeting_of_another_kind() -> None:
    with pytest.raises(Declined, match="the greeting: 554 No service"):
        Paper("554 No service").run(greeting())
    with pytest.raises(Broken, match=r"does not speak SMTP: it said 'SSH-2.0-x'.*the greeting"):
        Paper("SSH-2.0-x").run(greeting())
    with pytest.raises(Broken, match=r"the connection was lost \(waiting for the reply to the greeting\)"):
        Paper(None).run(greeting())


def test_a_greeting_that_came_before_it_was_waited_for() -> None:
    replies = Replies()
    replies.feed(b"220 mx.remote.test\r\n")
    exchange = Exchange(greeting(), replies)
    exchange.hear()

    assert exchange.stage is None
    assert replies.pending == 0


def test_start_tls() -> None:
    assert Paper("220 go on").run(start_tls())
    assert not Paper("454 not now").run(start_tls())


def test_login_by_plain_where_it_is_offered() -> None:
    paper = Paper("235 welcome")

    paper.run(login(peer("AUTH LOGIN PLAIN"), "bob", "geheim"))

    assert paper.said == [b"AUTH PLAIN " + b64encode(b"\0bob\0geheim") + b"\r\n"]


def test_login_by_login() -> None:
    paper = Paper("334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6", "235 welcome")

    paper.run(login(peer("AUTH LOGIN"), "bob", "geheim"))

    assert paper.said == [b"AUTH LOGIN\r\n", b64encode(b"bob") + b"\r\n", b64encode(b"geheim") + b"\r\n"]


@pytest.mark.parametrize("answers", [("535 5.7.8 no",), ("334 VXNlcm5hbWU6", "535 no"), ("334 a", "334 b", "334 c")])
def test_a_login_that_fails(answers: tuple[str, ...]) -> None:
    with pytest.raises(Declined) as caught:
        Paper(*answers).run(login(peer("AUTH LOGIN"), "bob", "geheim"))
    assert caught.value.stage is Stage.AUTH


def test_a_peer_that_speaks_out_of_turn_is_not_asked_anything() -> None:
    replies = Replies()
    replies.feed(b"421 4.4.2 idle for too long\r\n")

    with pytest.raises(Broken, match="out of turn: 421 idle for too long"):
        Exchange(farewell(), replies)


_OCTETS = st.lists(
    st.one_of(
        st.sampled_from([b"220 x\r\n", b"250-x\r\n", b"250 AUTH LOGIN\r\n", b"334 \r\n", b"535 no\r\n", b"502 ?\r\n"]),
        st.binary(max_size=12),
    ),
    max_size=12,
)


@given(_OCTETS, st.sampled_from(["greeting", "hello", "start_tls", "login", "farewell"]))
def test_whatever_a_peer_says_an_act_ends_in_its_own_ways(said: list[bytes], which: str) -> None:
    acts: dict[str, Act[object]] = {
        "greeting": greeting(),
        "hello": hello("mx.posta.test"),
        "start_tls": start_tls(),
        "login": login(peer("AUTH LOGIN"), "bob", "geheim"),
        "farewell": farewell(),
    }
    replies = Replies()
    exchange = Exchange(acts[which], replies)
    with suppress(Broken, Declined):
        for octets in said:
            replies.feed(octets)
            exchange.hear()
        if exchange.stage is not None:
            exchange.fail("the connection was lost")
        assert exchange.stage is None
