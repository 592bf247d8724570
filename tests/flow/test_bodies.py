"""Octets come out as they went in, whatever they are; what is not mail on the wire is refused."""

import socket
from typing import Any

import pytest

from tests.flow.clients import arrived, in_front, letter, message_id, offer, submission, submit


def everything() -> str:
    """All that is awkward in a body, within RFC 5321's lines."""
    return "\r\n".join((".", "..", ".x", "From me", "", "\t \x00\x0c", "trailing space ", "x" * 998, "")) + "\r\n"


def test_dots_nuls_and_long_lines(platform: Any, alice: Any, bob: Any) -> None:
    message = letter(alice.address, bob.address, everything())
    assert submit(platform, alice, bob.address, message)[0] == 250
    in_front(arrived(platform, bob, message_id(message)), message)


def test_eight_bits(platform: Any, alice: Any, bob: Any) -> None:
    message = letter(alice.address, bob.address, "", "Content-Type: text/plain; charset=iso-8859-1") + bytes(
        octet for octet in range(256) if octet not in b"\r\n"
    )
    message += b"\r\n"
    assert submit(platform, alice, bob.address, message, ["BODY=8BITMIME"])[0] == 250
    in_front(arrived(platform, bob, message_id(message)), message)


def test_twenty_megabytes(platform: Any, alice: Any) -> None:
    carol = platform.add_user()
    line = b"0123456789abcdef" * 4 + b"\r\n"
    message = letter(alice.address, carol.address, "") + line * (20_000_000 // len(line))
    assert submit(platform, alice, carol.address, message, [f"SIZE={len(message)}"])[0] == 250
    in_front(arrived(platform, carol, message_id(message)), message)


def test_the_size_limit_is_announced_and_kept(new_platform: Any, alice: Any, bob: Any, platform: Any) -> None:
    with submission(platform, alice) as client:
        limit = int(client.esmtp_features["size"])
        assert limit == 50 * 1024 * 1024
        code, said = client.mail(alice.address, [f"SIZE={limit + 1}"])
        assert (code, said[:5]) == (552, b"5.3.4")
        line = b"x" * 98 + b"\r\n"
        message = letter(alice.address, bob.address, "") + line * (limit // 100 + 1)
        code, text = offer(client, alice.address, [bob.address], message)
        assert (code, text[:5]) == (552, "5.3.4")
        # The connection goes on, and nothing has been kept.
        small = letter(alice.address, bob.address)
        assert offer(client, alice.address, [bob.address], small)[0] == 250
    arrived(platform, bob, message_id(small))


class Raw:
    """The MX door, by hand."""

    def __init__(self, platform: Any) -> None:
        self.socket = socket.create_connection(("127.0.0.1", platform.ports["smtp"]), timeout=30)
        self.file = self.socket.makefile("rb")
        self.reply()

    def reply(self) -> bytes:
        while (line := self.file.readline())[3:4] == b"-":
            continue
        return line

    def say(self, octets: bytes) -> bytes:
        self.socket.sendall(octets)
        return self.reply()

    def close(self) -> None:
        self.file.close()
        self.socket.close()


@pytest.fixture
def raw(platform: Any) -> Any:
    raw = Raw(platform)
    raw.say(b"EHLO client.test\r\n")
    yield raw
    raw.close()


def test_chunks(platform: Any, raw: Any, bob: Any) -> None:
    message = letter("someone@elsewhere.test", bob.address, ".\r\n.\r\nnot the end\r\n.\r\n")
    half = len(message) // 2
    raw.socket.sendall(
        b"MAIL FROM:<someone@elsewhere.test>\r\nRCPT TO:<%b>\r\n" % bob.address.encode()
        + b"BDAT %d\r\n%b" % (half, message[:half])
        + b"BDAT %d LAST\r\n%b" % (len(message) - half, message[half:])
    )
    assert [raw.reply()[:3] for _ in range(4)] == [b"250"] * 4
    in_front(arrived(platform, bob, message_id(message)), message)


@pytest.mark.parametrize("end", [b"\n.\n", b"\n.\r\n", b"\r.\r\n", b"\r\n.\n", b"\r\n.\r"])
def test_a_message_cannot_be_smuggled_in_another(platform: Any, raw: Any, bob: Any, end: bytes) -> None:
    first, second = letter("a@elsewhere.test", bob.address), letter("forged@posta.test", bob.address)
    envelope = b"MAIL FROM:<a@elsewhere.test>\r\nRCPT TO:<%b>\r\nDATA\r\n" % bob.address.encode()
    raw.socket.sendall(envelope)
    assert [raw.reply()[:3] for _ in range(3)] == [b"250", b"250", b"354"]

    said = raw.say(first + b"x" + end + envelope + second + b"\r\n.\r\n")

    assert said.startswith(b"550 5.6.0"), said
    assert raw.say(b"NOOP\r\n").startswith(b"250"), "what followed was taken for commands"
