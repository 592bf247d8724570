"""AUTH as the wire sees it."""

from base64 import b64encode
from typing import Any

import pytest

from services.core.smtp import replies


async def test_plain_with_an_initial_response(peer: Any) -> None:
    heard = await peer.say(b"AUTH plain " + b64encode(b"\0alice\0secret") + b"\r\n")
    assert heard == "235 2.7.0 Authentication successful"
    assert peer.session.login == "alice"
    assert "AUTH" not in await peer.say(b"EHLO client.example\r\n")
    assert (await peer.say(b"AUTH PLAIN\r\n")).startswith("503 5.5.1")
    await peer.say(b"MAIL FROM:<>\r\n")
    assert peer.session.protocol == "ESMTPA"


async def test_login_asks_twice(peer: Any) -> None:
    assert await peer.say(b"AUTH LOGIN\r\n") == "334 VXNlcm5hbWU6"
    assert await peer.say(b64encode(b"alice") + b"\r\n") == "334 UGFzc3dvcmQ6"
    assert (await peer.say(b64encode(b"wrong") + b"\r\n")).startswith("535 5.7.8")
    assert peer.session.login is None


async def test_an_empty_challenge_and_an_empty_answer(peer: Any) -> None:
    assert await peer.say(b"AUTH PLAIN\r\n") == "334 "
    assert (await peer.say(b"\r\n")).startswith("535")
    assert (await peer.say(b"AUTH PLAIN =\r\n")).startswith("535")


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        (b"*", replies.AUTH_CANCELLED),
        (b"not base64!", replies.AUTH_NOT_BASE64),
        (b"YQ", replies.AUTH_NOT_BASE64),
        (b"\xff", replies.AUTH_NOT_BASE64),
        (b"A" * 13000, replies.AUTH_TOO_LONG),
    ],
)
async def test_an_exchange_that_breaks_off(peer: Any, answer: bytes, reply: replies.Reply) -> None:
    await peer.say(b"AUTH LOGIN\r\n")
    assert await peer.say(answer + b"\r\n") == str(reply)
    assert (await peer.say(b"NOOP\r\n")).startswith("250")


async def test_a_response_of_12288_octets_is_heard(peer: Any) -> None:
    line = b"AUTH PLAIN " + b64encode(b"x" * 9198)
    assert len(line) <= 12286
    assert (await peer.say(line + b"\r\n")).startswith("535")


async def test_bad_initial_response_and_unknown_mechanism(peer: Any) -> None:
    assert (await peer.say(b"AUTH PLAIN !!\r\n")).startswith("501 5.5.2")
    assert (await peer.say(b"AUTH CRAM-MD5\r\n")).startswith("504 5.5.4")
    assert (await peer.say(b"AUTH\r\n")).startswith("501 5.5.4")


async def test_not_within_a_transaction(peer: Any) -> None:
    await peer.say(b"MAIL FROM:<>\r\n")
    assert (await peer.say(b"AUTH PLAIN\r\n")).startswith("503 5.5.1")


async def test_not_offered_at_all(peer: Any, door: Any) -> None:
    door.offered = ()
    assert "AUTH" not in await peer.say(b"EHLO client.example\r\n")
    assert (await peer.say(b"AUTH PLAIN\r\n")).startswith("502 5.5.1")


async def test_a_store_that_is_down_is_a_temporary_failure(peer: Any, door: Any) -> None:
    door.answers["authenticate"] = replies.AUTH_TRY_LATER
    assert (await peer.say(b"AUTH PLAIN =\r\n")).startswith("454 4.7.0")
    door.answers["authenticate"] = RuntimeError("gone")
    assert (await peer.say(b"AUTH PLAIN =\r\n")).startswith("451 4.3.0")
