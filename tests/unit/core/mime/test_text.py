"""What people search and see."""

import base64

import pytest

from services.core.mime.structure import parse
from services.core.mime.text import base_subject, preview, search_text, strip_html

LETTER = (
    "From: =?utf-8?q?J=C3=B6rg?= <joerg@x.test>\r\nTo: Team: Ann <ann@x.test>;\r\n"
    "Subject: =?utf-8?b?R1LDnFNTRQ==?=\r\n"
    "List-Id: The List <list.x.test>\r\nMessage-ID: <ID@x.test>\r\nReceived: by nobody\r\n"
    'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n'
    'Content-Type: multipart/alternative; boundary="c"\r\n\r\n'
    "--c\r\nContent-Type: text/plain; charset=iso-8859-15\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    "Costs 5 =A4 or=\r\n more\r\n"
    "--c\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    + base64.encodebytes(b"<style>p{}</style><p>H<sub>2</sub>O&nbsp;&auml;").decode()
    + "\r\n--c--\r\n--b\r\nContent-Type: application/pdf; name*=utf-8''Pl%C3%A4ne.PDF\r\n\r\nsecret\r\n--b--\r\n"
).encode()


def test_search_text_holds_what_people_look_for() -> None:
    assert search_text(parse(LETTER), LETTER).split("\n") == [
        "grüsse",
        "jörg joerg@x.test",
        "team, ann ann@x.test, ",
        "<id@x.test>",
        "the list <list.x.test>",
        "pläne.pdf",
        "costs 5 € or more",
        "h2o ä",
    ]


def test_search_text_keeps_its_limit() -> None:
    raw = b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + "ß".encode() * 500
    assert len(search_text(parse(raw), raw, 100)) == 100
    assert "\x00" not in search_text(parse(b"\r\na\x00b"), b"\r\na\x00b")


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (LETTER, "Costs 5 € or more"),
        (b"\r\n \r\n\t hello\r\n\r\n  there  ", "hello there"),
        (b"\r\n" + b"\r\n" * 2000 + b"late", "late"),
        (b"\r\n" + b"word " * 100, ("word " * 40).strip()),
        (
            b"Content-Type: text/html\r\n\r\n<head><title>no</title></head><body>Hi <b>y</b>ou &amp; me",
            "Hi you & me",
        ),
        (
            b"Content-Type: multipart/x; boundary=b\n\n--b\n\n \n--b\nContent-Type: text/html\n\n<i>html</i>",
            "html",
        ),
        (b"Content-Disposition: attachment\r\n\r\nnot shown", ""),
        (b"Content-Type: image/png\r\n\r\nxxxx", ""),
        (b"Content-Type: text/plain; charset=x-none\r\n\r\na\xffb\x00", "a\ufffdb"),
    ],
)
def test_preview(raw: bytes, shown: str) -> None:
    assert preview(parse(raw), raw) == shown


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("a<br>b<p class='x'>c", "a b c"),
        ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ("<!-- <p>gone</p> -->here", "here"),
        ("<!--open <p>here", "open here"),
        ("<STYLE type=x>p > a {}</Style >here<script>if (a<b) c</script> there", "here there"),
        ("<style>never closed", "never closed"),
        ("<header>kept</header>", "kept"),
        ("&lt;b&gt; &#228; &#0; &nope;", "<b> ä \ufffd &nope;"),
        ("cut <a href='", "cut"),
    ],
)
def test_html(markup: str, text: str) -> None:
    assert strip_html(markup) == text


@pytest.mark.parametrize("piece", ["<", "<a", "<!--", "<style>", "<style></style", "&", "&#", "<b ", "> <"])
def test_html_costs_no_more_than_its_length(piece: str) -> None:
    """A pattern that goes over its text again and again would not be done before the suite's timeout."""
    strip_html(piece * 200_000)


@pytest.mark.parametrize(
    ("subject", "base"),
    [
        ("hello", "hello"),
        ("Re: Hello", "hello"),
        ("RE : re: FW: Fwd: hello (fwd) (FWD) ", "hello"),
        ("Re[2]: hello", "hello"),
        ("Re [x] : hello", "hello"),
        ("[list] Re: [list] hello", "hello"),
        ("[list] [other] hello", "hello"),
        ("[blob]", "[blob]"),
        ("Re: [blob]", "[blob]"),
        ("[Fwd: Re: hello]", "hello"),
        ("[fwd: [fwd: hello]] (fwd)", "hello"),
        ("Re:", ""),
        ("", ""),
        ("a \t b\r\n c", "a b c"),
        ("Regarding: this", "regarding: this"),
        ("[ hello", "[ hello"),
        ("GRÖẞE", "grösse"),
        ("re: " * 10_000, ""),
    ],
)
def test_base_subject(subject: str, base: str) -> None:
    assert base_subject(subject) == base
