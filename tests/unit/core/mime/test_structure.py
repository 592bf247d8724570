"""The tree of parts: offsets, nasty messages, limits, and the standard library as a second opinion."""

import email
import email.message
import email.policy
import random
from email.mime.application import MIMEApplication
from email.mime.message import MIMEMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

import pytest

from services.core.mime.structure import MAX_HEADER_OCTETS, MAX_NESTING, MAX_PARTS, Message, Part, parse


def crlf(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


def shape(part: Part) -> object:
    name = f"{part.type}/{part.subtype}"
    return (name, *[shape(child) for child in part.children]) if part.children else name


def body(msg: Message, *path: int) -> bytes:
    part = msg.root
    for number in path:
        part = part.children[number - 1]
    return msg.data[part.body_start : part.body_end]


MIXED = crlf(
    """Subject: outer
Content-Type: multipart/mixed; boundary="b 1"

preamble
--b 1

first
--b 1  \t
Content-Type: message/rfc822

Subject: inner
Content-Type: multipart/alternative; boundary=b2

--b2
Content-Type: text/plain

plain

--b2
Content-Type: TEXT/HTML; charset=utf-8
Content-Transfer-Encoding: Quoted-Printable

<p>html
--b2--
--b 1x
--b 1
Content-Type: application/pdf
Content-ID: <c@d>
Content-Description: the\n paper
Content-Disposition: attachment; filename=a.pdf
Content-Language: en, de
Content-Location: http://x.test/
Content-MD5: Q2hlY2s=
Content-Transfer-Encoding: base64

JVBERg==
--b 1--
epilogue
"""
)


def test_a_tree_with_everything() -> None:
    msg = parse(MIXED)
    assert shape(msg.root) == (
        "multipart/mixed",
        "text/plain",
        ("message/rfc822", ("multipart/alternative", "text/plain", "text/html")),
        "application/pdf",
    )
    assert body(msg, 1) == b"first"
    assert body(msg, 2, 1, 1) == b"plain\r\n"
    # What only begins like the outer delimiter belongs to the epilogue of the inner message.
    assert body(msg, 2).endswith(b"--b2--\r\n--b 1x")
    assert body(msg, 3) == b"JVBERg=="
    assert msg.data[: msg.header_length].endswith(b'"b 1"\r\n\r\n')
    pdf = msg.root.children[2]
    assert (pdf.id, pdf.description, pdf.md5) == (b"<c@d>", b"the paper", b"Q2hlY2s=")
    assert (pdf.location, pdf.language, pdf.encoding) == (b"http://x.test/", (b"en", b"de"), "base64")
    assert pdf.disposition is not None
    assert pdf.disposition.kind == "attachment"
    enclosed = msg.root.children[1]
    assert enclosed.lines == body(msg, 2).count(b"\n")
    html = enclosed.children[0].children[1]
    assert (html.encoding, html.params) == ("quoted-printable", (("charset", b"utf-8"),))
    assert msg.limits_hit == ()


def test_bare_lf_gives_the_same_tree() -> None:
    msg = parse(memoryview(MIXED.replace(b"\r\n", b"\n")))
    assert shape(msg.root) == shape(parse(MIXED).root)
    assert body(msg, 2, 1, 1) == b"plain\n"


@pytest.mark.parametrize(
    ("raw", "expected", "header_length"),
    [
        (b"", "text/plain", 0),
        (b"\r\n", "text/plain", 2),
        (b"\r\n\r\n", "text/plain", 2),
        (b"\n", "text/plain", 1),
        (b"no header, no end", "text/plain", 17),
        (b"\r\nonly a body", "text/plain", 2),
        (b"\x00\x00: \x00\r\n\r\n\x00", "text/plain", 9),
        (b"\xff\xfe\r\n\r\n", "text/plain", 6),
        (b"Content-Type: text\r\n\r\n", "text/plain", 22),
        (b"Content-Type: multipart/mixed\r\n\r\nno boundary", ("multipart/mixed", "text/plain"), 33),
        (b'Content-Type: multipart/mixed; boundary=""\r\n\r\n--\r\n', ("multipart/mixed", "text/plain"), 46),
        (b"Content-Type: multipart/mixed; boundary=x\r\n\r\nno delimiter", ("multipart/mixed", "text/plain"), 45),
        (b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x--\r\n", ("multipart/mixed", "text/plain"), 45),
        (b"Content-Type: multipart/mixed; boundary=x\r\n", ("multipart/mixed", "text/plain"), 43),
        (b"Content-Type: multipart/mixed; boundary=x\n\n--x", ("multipart/mixed", "text/plain"), 43),
        (
            b"Content-Type: multipart/mixed; boundary=x\n\n--x\n--x\n--x--",
            ("multipart/mixed", "text/plain", "text/plain"),
            43,
        ),
        (
            b"Content-Type: multipart/digest; boundary=x\n\n--x\n\nSubject: y\n\nz\n--x--",
            ("multipart/digest", ("message/rfc822", "text/plain")),
            44,
        ),
        (
            b"Content-Type: multipart/x; boundary*0=a; boundary*1=b\n\n--ab\n\n1\n--ab\n\n2",
            ("multipart/x", "text/plain", "text/plain"),
            55,
        ),
        (b"Content-Type: message/rfc822\n\n", ("message/rfc822", "text/plain"), 30),
        (
            b"Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nU3ViamVjdA==",
            "application/octet-stream",
            64,
        ),
    ],
)
def test_nasty(raw: bytes, expected: object, header_length: int) -> None:
    msg = parse(raw)
    assert shape(msg.root) == expected
    assert msg.header_length == header_length
    assert msg.limits_hit == ()


def test_a_missing_end_loses_nothing() -> None:
    cut = MIXED[: MIXED.index(b"--b 1--")].removesuffix(b"\r\n")
    msg = parse(cut)
    assert shape(msg.root) == shape(parse(MIXED).root)
    assert body(msg, 3) == b"JVBERg=="


def test_an_outer_delimiter_ends_unfinished_inner_parts() -> None:
    inner = b"Content-Type: multipart/mixed; boundary=i\n\n--i\n\none"
    msg = parse(b"Content-Type: multipart/mixed; boundary=o\n\n--o\n" + inner + b"\n--o\n\ntwo\n--o--")
    assert shape(msg.root) == ("multipart/mixed", ("multipart/mixed", "text/plain"), "text/plain")
    assert (body(msg, 1, 1), body(msg, 2)) == (b"one", b"two")


def test_nesting_stops_at_the_limit() -> None:
    deep = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(10_000))
    msg = parse(deep)
    assert msg.limits_hit == ("nesting",)
    part, depth = msg.root, 0
    while part.children:
        part, depth = part.children[0], depth + 1
    assert depth == MAX_NESTING
    assert part.type == "application"
    messages = parse(b"Content-Type: message/rfc822\n\n" * 10_000)
    assert messages.limits_hit == ("nesting",)


def test_one_boundary_over_and_over() -> None:
    msg = parse(
        b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\nContent-Type: multipart/mixed; boundary=b\n\n" * 5000
    )
    assert msg.limits_hit == ("parts",)


def test_parts_stop_at_the_limit_and_the_last_takes_the_rest() -> None:
    raw = b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\nx\n" * 3000 + b"--b--\n"
    msg = parse(raw)
    assert msg.limits_hit == ("parts",)
    assert len(msg.root.children) == MAX_PARTS
    assert msg.root.children[-1].body_end == len(raw)


def test_header_floods_are_read_to_the_limit() -> None:
    msg = parse(b"A: b\n" * 20_000 + b"\nbody")
    assert msg.limits_hit == ("header-lines",)
    assert msg.data[msg.header_length :] == b"body"
    msg = parse(b"A: " + b"b" * (MAX_HEADER_OCTETS + 5) + b"\nContent-Type: image/png\n\nbody")
    assert msg.limits_hit == ("header-octets",)
    assert (msg.root.type, msg.data[msg.header_length :]) == ("text", b"body")


def test_lines_that_only_look_like_delimiters_are_paid_for() -> None:
    raw = b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\n" + b"\n--bx" * 300_000 + b"\n--b\n\nlast"
    msg = parse(raw)
    assert msg.limits_hit == ("scans",)
    assert msg.root.children[-1].body_end == len(raw)


WORDS = ["alpha", "beta", "gamma", "délta", "--x", "--", "From\t\n"]


def generated(seed: int) -> email.message.Message:
    """A well-formed message of random shape."""
    rng = random.Random(seed)

    def leaf() -> email.message.Message:
        text = " ".join(rng.choices(WORDS, k=rng.randrange(1, 60)))
        match rng.randrange(4):
            case 0:
                return MIMEText(text, "plain", "utf-8")
            case 1:
                return MIMEText(f"<p>{text}</p>", "html", "iso-8859-1")
            case 2:
                return MIMEApplication(rng.randbytes(rng.randrange(300)), "pdf", name="grün.pdf")
            case _:
                return MIMEMessage(tree(0))

    def tree(depth: int) -> email.message.Message:
        if depth == 0 or rng.random() < 0.3:
            return MIMEText("plain text\n", "plain", "us-ascii") if depth == 0 else leaf()
        multi = MIMEMultipart(rng.choice(["mixed", "alternative", "related"]))
        for _ in range(rng.randrange(1, 4)):
            multi.attach(tree(depth - 1))
        return multi

    msg = tree(3)
    msg["Subject"] = "generated"
    msg["From"] = "a@b.test"
    return msg


def compare(ours: Part, theirs: email.message.Message, data: bytes) -> None:
    assert f"{ours.type}/{ours.subtype}" == theirs.get_content_type()
    assert [field.name.decode() for field in ours.fields] == [name.lower() for name in theirs.keys()]  # noqa: SIM118 - not a dict
    payload = theirs.get_payload()
    if isinstance(payload, list):
        assert len(ours.children) == len(payload)
        for child, other in zip(ours.children, payload, strict=True):
            assert isinstance(other, email.message.Message)
            compare(child, other, data)
    else:
        assert isinstance(payload, str)
        assert data[ours.body_start : ours.body_end].decode() == payload


@pytest.mark.parametrize("seed", range(60))
def test_the_standard_library_agrees(seed: int) -> None:
    raw = generated(seed).as_bytes(policy=email.policy.compat32.clone(linesep="\r\n"))
    compare(parse(raw).root, email.message_from_bytes(raw), raw)
