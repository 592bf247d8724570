"""What engines are shown of a message."""

import base64
import os

import pytest

from services.filter.examined import MAX_ENCLOSED
from tests.unit.filter.letters import EICAR, HEAD, PLAIN, examined, letter, part, zipped


def test_leaves_names_and_contents() -> None:
    message = examined(
        letter(part(b"%PDF", "bill.pdf"), part(b"caf=E9", kind="text/plain", encoding="quoted-printable"))
    )
    assert [(leaf.type, leaf.names, leaf.content) for leaf in message.leaves] == [
        ("text/plain", (), b"Hi"),
        ("application/octet-stream", ("bill.pdf",), b"%PDF"),
        ("text/plain", (), b"caf\xe9"),
    ]
    assert message.header(b"message-id") == "<one@posta.test>"
    assert not message.is_large


def test_both_names_of_a_part_are_seen() -> None:
    attachment = (
        b'Content-Type: application/pdf; name="a.exe"\r\nContent-Disposition: attachment; filename=a.pdf\r\n\r\nx'
    )
    assert examined(letter(attachment)).leaves[1].names == ("a.pdf", "a.exe")


@pytest.mark.parametrize("encoding", ["7bit", "base64"])
def test_enclosed_messages_are_opened(encoding: str) -> None:
    inner = letter(part(EICAR, "inner.txt"))
    message = examined(letter(part(inner, kind="message/rfc822", encoding=encoding)))
    assert EICAR in [leaf.content for leaf in message.leaves]


def test_a_message_named_eml_is_opened_whatever_its_type() -> None:
    message = examined(letter(part(letter(part(EICAR)), "forward.EML")))
    assert EICAR in [leaf.content for leaf in message.leaves]


def test_messages_within_encoded_messages_end_at_the_bound() -> None:
    octets = PLAIN
    for _ in range(MAX_ENCLOSED + 2):
        octets = letter(part(octets, kind="message/rfc822"))
    assert examined(octets).limits_hit == ("nesting",)


def test_plain_leaves_out_what_must_be_decoded() -> None:
    text = part(b"visible", kind="text/plain", encoding="7bit")
    message = examined(letter(part(b"\0" * 3000, "a.bin"), text))
    assert b"visible" in message.plain
    assert b"AAAAAAAA" not in message.plain
    assert b"a.bin" in message.plain


@pytest.mark.parametrize("width", [76, 75, 61, 1000])
def test_large_base64_is_decoded_in_slices_as_in_one(width: int) -> None:
    content = os.urandom(3_000_001)
    digits = base64.b64encode(content)
    lines = b"\r\n".join(digits[at : at + width] for at in range(0, len(digits), width))
    octets = HEAD + b"Content-Type: application/x\r\nContent-Transfer-Encoding: base64\r\n\r\n" + lines + b"\r\n"
    message = examined(octets)
    assert message.leaves[0].content == content
    assert message.is_large


def test_large_damaged_base64_gives_what_can_be_read() -> None:
    content = os.urandom(3_000_000)
    octets = HEAD + b"Content-Type: application/x\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    digits = base64.encodebytes(content)
    assert examined(octets + digits[:500_000] + b"!!" + digits[500_000:]).leaves[0].content == content
    padded = examined(octets + base64.b64encode(content[:1000]) + digits).leaves[0].content
    assert padded.startswith(content[:1000])


def test_large_quoted_printable() -> None:
    line = b"caf=C3=A9 and a soft =\r\nbreak\r\n"
    octets = HEAD + b"Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + line * 60_000
    assert examined(octets).leaves[0].content == "café and a soft break\r\n".encode() * 60_000


def test_the_head_needs_not_the_whole() -> None:
    leaf = examined(letter(part(b"MZ" + os.urandom(100_000), "a.bin"))).leaves[1]
    assert leaf.head(500) == leaf.content[:500]


def test_a_small_archive_is_work_for_a_thread() -> None:
    assert examined(letter(part(zipped(("a", b"a")), "a.zip"))).is_large
