"""ENVELOPE, BODY and BODYSTRUCTURE, read back as a client reads them."""

import pytest

from services.core.mime.envelope import body, bodystructure, envelope, string
from services.core.mime.structure import parse
from tests.unit.core.mime.imap_reader import read

# RFC 3501 section 8, the message whose ENVELOPE and BODY the RFC prints.
GRAY = (
    b"Date: Wed, 17 Jul 1996 02:23:25 -0700 (PDT)\r\n"
    b"From: Terry Gray <gray@cac.washington.edu>\r\n"
    b"Subject: IMAP4rev1 WG mtg summary and minutes\r\n"
    b"To: imap@cac.washington.edu\r\n"
    b"cc: minutes@CNRI.Reston.VA.US, John Klensin <KLENSIN@MIT.EDU>\r\n"
    b"Message-Id: <B27397-0100000@cac.washington.edu>\r\n"
    b"MIME-Version: 1.0\r\n"
    b"Content-Type: TEXT/PLAIN; CHARSET=US-ASCII\r\n\r\n"
)


def test_the_envelope_of_the_rfc() -> None:
    assert envelope(parse(GRAY)) == (
        b'("Wed, 17 Jul 1996 02:23:25 -0700 (PDT)" "IMAP4rev1 WG mtg summary and minutes" '
        b'(("Terry Gray" NIL "gray" "cac.washington.edu")) (("Terry Gray" NIL "gray" "cac.washington.edu")) '
        b'(("Terry Gray" NIL "gray" "cac.washington.edu")) ((NIL NIL "imap" "cac.washington.edu")) '
        b'((NIL NIL "minutes" "CNRI.Reston.VA.US")("John Klensin" NIL "KLENSIN" "MIT.EDU")) NIL NIL '
        b'"<B27397-0100000@cac.washington.edu>")'
    )
    assert body(parse(GRAY + b"line\r\n" * 92)) == (b'("text" "plain" ("charset" "US-ASCII") NIL NIL "7bit" 552 92)')


def test_an_empty_message_has_an_envelope_of_nils() -> None:
    assert envelope(parse(b"")) == b"(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)"
    assert bodystructure(parse(b"")) == b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0 NIL NIL NIL NIL)'


@pytest.mark.parametrize(
    ("header", "index", "value"),
    [
        # sender, reply-to: absent and empty ones are those of From
        (b"From: a@b.c\r\nSender: s@b.c\r\n", 3, [[None, None, b"s", b"b.c"]]),
        (b"From: a@b.c\r\nSender:\r\nReply-To: ,\r\n", 3, [[None, None, b"a", b"b.c"]]),
        (b"From: a@b.c\r\nSender:\r\nReply-To: ,\r\n", 4, [[None, None, b"a", b"b.c"]]),
        (b"Reply-To: r@b.c\r\n", 4, [[None, None, b"r", b"b.c"]]),
        (b"Reply-To: r@b.c\r\n", 2, None),
        (b"To: G: a@b.c;\r\n", 5, [[None, None, b"G", None], [None, None, b"a", b"b.c"], [None, None, None, None]]),
        (
            b"To: undisclosed-recipients:;\r\n",
            5,
            [[None, None, b"undisclosed-recipients", None], [None, None, None, None]],
        ),
        (b"To: <@r.test:a@b.c>\r\n", 5, [[None, b"@r.test", b"a", b"b.c"]]),
        (b"To: root\r\n", 5, [[None, None, b"root", b""]]),
        (b"To: a@b.c\r\nTo: d@e.f\r\n", 5, [[None, None, b"a", b"b.c"], [None, None, b"d", b"e.f"]]),
        (b"Subject: one\r\nSubject: two\r\n", 1, b"one"),
        (b"Subject:\r\n", 1, b""),
        (b"Subject: a\r\n b\r\n\tc\r\n", 1, b"a b\tc"),
        (b'Subject: say "yes" \\ no\r\n', 1, b'say "yes" \\ no'),
        (b"Subject: gr\xc3\xbcn\r\n", 1, b"gr\xc3\xbcn"),
        (b"Subject: a\x00b\r\n", 1, b"ab"),
        (b"Subject: a\rb\r\n", 1, b"a\rb"),
        (b"Subject: " + b"x" * 1001 + b"\r\n", 1, b"x" * 1001),
        (b"In-Reply-To: <a@b> <c@d>\r\n", 8, b"<a@b> <c@d>"),
    ],
)
def test_fields_of_the_envelope(header: bytes, index: int, value: object) -> None:
    assert read(envelope(parse(header + b"\r\n")))[index] == value


@pytest.mark.parametrize(
    ("text", "wire"),
    [
        (b"", b'""'),
        (b"x" * 1000, b'"' + b"x" * 1000 + b'"'),
        (b"x" * 1001, b"{1001}\r\n" + b"x" * 1001),
        (b'a"\\b', b'"a\\"\\\\b"'),
        (b"a\rb", b"{3}\r\na\rb"),
        (b"\x00\xff\x00", b"{1}\r\n\xff"),
        (b"\x00", b'""'),
    ],
)
def test_strings(text: bytes, wire: bytes) -> None:
    assert string(text) == wire


NESTED = (
    b"Content-Type: multipart/mixed; boundary=b\r\nContent-Language: en\r\n\r\n"
    b"--b\r\nContent-ID: <1@x>\r\nContent-Description: d\r\nContent-MD5: m\r\n"
    b"Content-Disposition: inline\r\nContent-Language: en, fr\r\nContent-Location: l\r\n\r\none\r\ntwo\r\n"
    b"--b\r\nContent-Type: message/rfc822\r\nContent-Disposition: attachment; filename=\"gr\xc3\xbcn.eml\"\r\n\r\n"
    b"Subject: inner\r\nFrom: a@b.c\r\n\r\nbody\r\n\r\n"
    b"--b\r\nContent-Type: image/png; name=x\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA\r\n--b--"
)  # fmt: skip


def test_a_body_structure_with_everything() -> None:
    text, message, image, subtype, params, disposition, language, location = read(bodystructure(parse(NESTED)))
    assert (subtype, params, disposition, language, location) == (b"mixed", [b"boundary", b"b"], None, b"en", None)
    assert text == [
        b"text", b"plain", [b"charset", b"us-ascii"], b"<1@x>", b"d", b"7bit", 8, 1,
        b"m", [b"inline", None], [b"en", b"fr"], b"l",
    ]  # fmt: skip
    assert message == [
        b"message", b"rfc822", None, None, None, b"7bit", 37,
        [None, b"inner", *[[[None, None, b"a", b"b.c"]]] * 3, None, None, None, None, None],
        [b"text", b"plain", [b"charset", b"us-ascii"], None, None, b"7bit", 6, 1, None, None, None, None],
        4, None, [b"attachment", [b"filename", "grün.eml".encode()]], None, None,
    ]  # fmt: skip
    assert image == [b"image", b"png", [b"name", b"x"], None, None, b"base64", 4, None, None, None, None]


def test_body_is_body_structure_without_extensions() -> None:
    full, plain = read(bodystructure(parse(NESTED))), read(body(parse(NESTED)))
    assert plain[3:] == [b"mixed"]
    assert plain[0] == full[0][:8]
    assert plain[1] == [*full[1][:8], full[1][8][:8], 4]
    assert plain[2] == full[2][:7]


def test_a_multipart_without_parts_still_has_one() -> None:
    raw = b"Content-Type: multipart/mixed; boundary=b\r\n\r\nno delimiter\r\n"
    assert read(body(parse(raw))) == [
        [b"text", b"plain", [b"charset", b"us-ascii"], None, None, b"7bit", 14, 1], b"mixed",
    ]  # fmt: skip
