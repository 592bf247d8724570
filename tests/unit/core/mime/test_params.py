"""Content-Type, Content-Disposition and their parameters."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.mime.params import content_type, decode_params, disposition, param


@pytest.mark.parametrize(
    ("raw", "media", "params"),
    [
        (b"text/plain; charset=us-ascii (Plain text)", "text/plain", {"charset": "us-ascii"}),
        (b'TEXT/HTML; Charset="UTF-8"', "text/html", {"charset": "UTF-8"}),
        (b' multipart / mixed ; boundary = "a b c" ; type=x', "multipart/mixed", {"boundary": "a b c", "type": "x"}),
        (b'application/pdf; name="a\\"b;c.pdf"', "application/pdf", {"name": 'a"b;c.pdf'}),
        (b"application/pdf; name=my file (1).pdf; x=y", "application/pdf", {"name": "my file (1).pdf", "x": "y"}),
        (b"application/pdf;name==?utf-8?q?gr=C3=BCn.pdf?=", "application/pdf", {"name": "grün.pdf"}),
        (b'application/pdf;name="=?utf-8?b?Z3LDvG4ucGRm?="', "application/pdf", {"name": "grün.pdf"}),
        (b'a/b; name="unclosed', "a/b", {"name": "unclosed"}),
        (b"text/plain;;;charset=x;", "text/plain", {"charset": "x"}),
        (b"text/plain; =x; y", "text/plain", {}),
        # RFC 2231 sections 3 and 4
        (b'm/x; URL*0="ftp://"; URL*1="cs.test/pub/x"', "m/x", {"url": "ftp://cs.test/pub/x"}),
        (b"a/b; title*=us-ascii'en-us'This%20is%20%2A%2A%2Afun%2A%2A%2A", "a/b", {"title": "This is ***fun***"}),
        (
            b"a/b; title*1*=%2A%2A%2Afun%2A%2A%2A%20; title*2=\"isn't it!\"; title*0*=us-ascii'en'This%20is%20",
            "a/b",
            {"title": "This is ***fun*** isn't it!"},
        ),
        (b"a/b; name=x; name*=utf-8''%E2%82%AC.txt", "a/b", {"name": "€.txt"}),
        (b"a/b; name*=iso-8859-1''%A3", "a/b", {"name": "£"}),
        (b"a/b; name*=no-quotes%20here", "a/b", {"name": "no-quotes here"}),
        (b"a/b; name*1=lost", "a/b", {}),
        (b"text", "text/plain", {}),
        (b"", "text/plain", {}),
        (b"\xff\xfe", "text/plain", {}),
    ],
)
def test_content_type(raw: bytes, media: str, params: dict[str, str]) -> None:
    found = content_type(raw)
    assert f"{found.type}/{found.subtype}" == media
    assert decode_params(found.params) == params
    for name, value in params.items():
        assert param(found.params, name) == value


def test_disposition() -> None:
    found = disposition(b'ATTACHMENT; filename*0="a"; filename*1="b.txt"; size=3')
    assert found is not None
    assert found.kind == "attachment"
    assert param(found.params, "filename") == "ab.txt"
    assert disposition(b"  ") is None


@settings(deadline=None)
@given(st.binary(max_size=200) | st.text("a/;=*'\"%20\\ ()", max_size=60).map(str.encode))
def test_any_octets(raw: bytes) -> None:
    decode_params(content_type(raw).params)
    found = disposition(raw)
    if found is not None:
        "".join(decode_params(found.params).values()).encode()
