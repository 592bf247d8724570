"""All that delivery keeps of a message, from one call that nothing can make raise."""

from datetime import UTC, datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.core.mime.facts import HEAD_LIMIT, facts
from services.core.mime.parts import decode_parts
from services.core.mime.section import filter_header
from services.core.mime.structure import Part, parse
from tests.unit.core.mime.imap_reader import read

LETTER = (
    "Received: by mx\r\n\tfor bob\r\nFrom: Jörg <joerg@x.test>\r\nTo: bob@x.test\r\n"
    "Subject: Re: [list] =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n =?utf-8?q?_aus?= Ulm\r\n"
    "Date: Mon, 23 Nov 2026 10:00:00 +0100\r\n"
    "Message-ID: <new@x.test>\r\nIn-Reply-To: <old@x.test>\r\nReferences: <oldest@x.test>\r\n <old@x.test>\r\n"
    'X-Other: 1\r\nContent-Type: multipart/mixed; boundary="b b"\r\n\r\npreamble\r\n--b b\r\n'
    "Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    "<p>Gr=C3=BC=C3=9Fe!\r\n"
    "--b b\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\nTo: G:a@b.c;\r\n\r\ninner text\r\n"
    "--b b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename=\"a b.pdf\"\r\n"
    "Content-Transfer-Encoding: base64\r\n\r\nJVBERg\r\n--b b--\r\n"
).encode()  # fmt: skip


def test_a_letter() -> None:
    found = facts(LETTER)
    assert found.subject == "Re: [list] Grüße aus Ulm"
    assert found.base_subject == "grüsse aus ulm"
    assert found.sent_at == datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
    assert found.message_id == "new@x.test"
    assert found.in_reply_to == ["old@x.test"]
    assert found.references == ["oldest@x.test", "old@x.test"]
    assert found.preview == "inner text"
    assert (found.from_text, found.to_text) == ("jörg joerg@x.test", "bob@x.test")
    assert (found.cc_text, found.bcc_text) == ("", "")
    assert found.has_attachment
    assert found.limits_hit == ()
    assert LETTER[: found.header_length].endswith(b'"b b"\r\n\r\n')
    assert found.head is not None
    assert found.head.startswith("From: Jörg <joerg@x.test>\r\n".encode())
    assert b"Received" not in found.head
    assert b"X-Other" not in found.head
    assert "grüsse!" in found.search_text
    assert "inner text" in found.search_text
    assert "a b.pdf" in found.search_text


def test_the_prepared_head_answers_as_the_header_would() -> None:
    found = facts(LETTER)
    assert found.head is not None
    fields = frozenset({b"from", b"references", b"subject", b"x-priority"})
    assert filter_header(found.head, fields) == filter_header(LETTER[: found.header_length], fields)


@pytest.mark.parametrize(
    ("raw", "head"),
    [
        (b"", b""),
        (b"no header", b""),
        (b"X: y\r\n\r\n", b""),
        (b"To: a", b"To: a\r\n"),
        (b"To: " + b"a" * HEAD_LIMIT, None),
        (b"To: a\r\n" * 10_001, None),
    ],
)
def test_head(raw: bytes, head: bytes | None) -> None:
    assert facts(raw).head == head


def test_references_keep_the_last_hundred() -> None:
    raw = b"References: " + b" ".join(b"<%d@x>" % n for n in range(300)) + b"\r\n\r\n"
    assert facts(raw).references == [f"{n}@x" for n in range(200, 300)]


def test_limits_are_told() -> None:
    assert facts(b"To: " + b"a@b," * 10_001 + b"\r\n\r\n").limits_hit == ("addresses",)


def multi(*parts: bytes) -> bytes:
    return b"Content-Type: multipart/mixed; boundary=b\n\n" + b"".join(b"--b\n" + p + b"\n" for p in parts) + b"--b--\n"


@pytest.mark.parametrize(
    ("raw", "attached"),
    [
        (b"\nhello", False),
        (b"Content-Disposition: attachment\n\nhello", True),
        (b"Content-Type: application/pdf\n\nx", True),
        (multi(b"\nx", b"Content-Type: text/html\n\nx"), False),
        (multi(b"\nx", b"Content-Type: application/pdf\n\nx"), True),
        (multi(b"\nx", b"Content-Type: text/x-diff; name=a.patch\n\nx"), True),
        (multi(b"\nx", b"Content-Type: message/rfc822\n\nSubject: x\n\nx"), True),
        (multi(b"Content-Type: image/png\nContent-ID: <a@b>\n\nx"), False),
        (multi(b"Content-Type: image/png\nContent-Disposition: inline\n\nx"), False),
        (multi(b"\nx", b"Content-Type: application/pgp-signature; name=s.asc\n\nx"), False),
    ],
)
def test_what_people_call_an_attachment(raw: bytes, attached: bool) -> None:
    assert facts(raw).has_attachment is attached


def check(raw: bytes) -> None:
    """What must hold for every message there is."""
    found = facts(raw)
    msg = parse(raw)
    assert len(read(found.envelope)) == 10
    follow(read(found.body), msg.root, False)
    follow(read(found.bodystructure), msg.root, True)
    table = decode_parts(found.parts)
    assert {"", "1"} <= set(table)
    nested(msg.root, 0, len(raw))
    texts = [found.preview, found.subject, found.base_subject, found.search_text, *found.references, *found.in_reply_to]
    texts += [found.message_id or "", found.from_text, found.to_text, found.cc_text, found.bcc_text]
    for text in texts:
        assert "\x00" not in text
        text.encode()
    assert b"\x00" not in found.envelope + found.body + found.bodystructure
    assert len(found.preview) <= 200


def follow(wire: list[object], part: Part, extended: bool) -> None:
    """The wire form has the shape of the tree."""
    if part.is_multipart:
        assert len(wire) == len(part.children) + (5 if extended else 1)
        for item, child in zip(wire, part.children, strict=False):
            assert isinstance(item, list)
            follow(item, child, extended)
        return
    assert wire[6] == part.size
    base = 8 if part.type == "text" else 7
    if part.is_message:
        base = 10
        assert isinstance(wire[8], list)
        follow(wire[8], part.children[0], extended)
    assert len(wire) == base + (4 if extended else 0)


def nested(part: Part, start: int, end: int) -> None:
    """Parts lie inside their parents, one behind the other."""
    assert start <= part.header_start <= part.body_start <= part.body_end <= end
    at = part.body_start
    for child in part.children:
        nested(child, at, part.body_end)
        at = child.body_end


@settings(deadline=None)
@given(st.binary(max_size=400))
@example(b"")
@example(b"\r\n")
def test_any_octets(raw: bytes) -> None:
    check(raw)


TOKENS = [
    b"\r\n", b"\n", b"\r", b"\x00", b"\xff", b" ", b"\t", b":", b";", b"=", b'"', b"\\", b"(", b")", b"<", b">", b"@",
    b",", b"--b b", b"--b b--", b"Content-Type: ", b"multipart/mixed; boundary=x", b"message/rfc822", b"--x",
    b"From: ", b"Date: ", b"=?utf-7?q?+2AA-?=", b"charset=utf-16", b"Content-Transfer-Encoding: base64", b"boundary*0=",
    b"filename*=''%ff",
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutated_letters(data: st.DataObject) -> None:
    raw = LETTER
    for _ in range(data.draw(st.integers(1, 8))):
        start = data.draw(st.integers(0, len(raw)))
        end = start + data.draw(st.integers(0, 30))
        raw = raw[:start] + data.draw(st.sampled_from(TOKENS)) + raw[end:]
    check(raw)


@settings(deadline=None)
@given(st.lists(st.sampled_from(TOKENS), max_size=60).map(b"".join))
def test_messages_made_of_grammar(raw: bytes) -> None:
    check(raw)


@pytest.mark.parametrize("cut", range(0, len(LETTER), 37))
def test_cut_letters(cut: int) -> None:
    check(LETTER[:cut])
    check(LETTER[cut:])
