"""The fields that tell results: nothing that a stranger wrote can end its value."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.received import without_forged_results
from services.filter.origin.results import Result, Told, authentication_results, received_spf


def test_authentication_results() -> None:
    told = [
        Told("spf", Result.PASS, "example.org permits 192.0.2.1", (("smtp.mailfrom", "a=b@example.org"),)),
        Told("dkim", Result.FAIL, "body has been altered", (("header.d", "example.org"), ("header.b", "ab/+cd="))),
    ]
    assert authentication_results("mx.posta.test", told) == (
        b"Authentication-Results: mx.posta.test;\r\n"
        b"\tspf=pass (example.org permits 192.0.2.1) smtp.mailfrom=a=b@example.org;\r\n"
        b'\tdkim=fail (body has been altered) header.d=example.org header.b="ab/+cd="\r\n'
    )
    assert authentication_results("mx.posta.test", []) == b"Authentication-Results: mx.posta.test;\r\n\tnone\r\n"


def test_received_spf() -> None:
    pairs = [("client-ip", "2001:db8::1"), ("envelope-from", "a b@example.org"), ("helo", ""), ("identity", "mailfrom")]
    assert received_spf("mx.posta.test", Result.SOFTFAIL, "not (quite)", pairs) == (
        b"Received-SPF: softfail (mx.posta.test: not quite)\r\n"
        b'\tclient-ip="2001:db8::1"; envelope-from="a b@example.org"; identity=mailfrom\r\n'
    )


@given(value=st.text(max_size=600), reason=st.text(max_size=600))
def test_nothing_breaks_out(value: str, reason: str) -> None:
    field = authentication_results("h", [Told("spf", Result.FAIL, reason, (("smtp.helo", value),))])
    field += received_spf("h", Result.FAIL, reason, [("helo", value)])
    lines = field.decode("ascii").split("\r\n")
    assert [line[:1] for line in lines] == ["A", "\t", "R", "\t", ""]
    assert max(map(len, lines)) < 998
    assert field.count(b";") - field.count(b"\\;") >= 1
    quoted = field.replace(b"\\\\", b"").replace(b'\\"', b"")
    assert quoted.count(b'"') % 2 == 0


@pytest.mark.parametrize("name", [b"mx.posta.test", b"MX.posta.TEST", b' (x) "mx.posta.test"'])
def test_a_forged_field_of_our_name_is_gone_before_ours_is_written(name: bytes) -> None:
    forged = b"Authentication-Results: " + name + b"; dmarc=pass\r\nSubject: x\r\n\r\n"
    assert without_forged_results(forged, "mx.posta.test") == b"Subject: x\r\n\r\n"
