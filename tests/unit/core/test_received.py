"""The trace header cannot be bent by what a peer says, and nobody may speak in our name."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from services.core.ids import SpoolId
from services.core.received import Hop, received, without_forged_results

HOP = Hop("client.test", "192.0.2.1", "mx.posta.test", SpoolId("01h"), datetime(2026, 1, 2, tzinfo=UTC), "", "ESMTP")


def test_the_field_names_who_gave_it_to_whom_how_and_when() -> None:
    assert received(HOP) == (
        b"Received: from client.test ([192.0.2.1])\r\n by mx.posta.test with ESMTP id 01h;\r\n"
        b" Fri, 02 Jan 2026 00:00:00 +0000\r\n"
    )


def test_a_peer_cannot_add_lines_or_lie_about_its_address() -> None:
    bent = Hop("evil\r\nX-Spam: no", "2001:db8::1", HOP.host, HOP.spool_id, HOP.at, "TLSv1.3 X", "ESMTPS", "bob@x.test")
    field = received(bent)
    assert b"\r\nX-Spam" not in field
    assert b"([IPv6:2001:db8::1])" in field
    assert b"\r\n for <bob@x.test>;\r\n" in field


def test_a_name_that_the_address_has_stands_beside_it() -> None:
    named = replace(HOP, rdns="mx.client.test\r\nX: y")
    assert received(named).startswith(b"Received: from client.test (mx.client.test?X:?y [192.0.2.1])\r\n by ")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"Subject: x\r\n\r\nAuthentication-Results: mx.posta.test; spf=pass\r\n", None),
        (b"Authentication-Results: other.test; spf=pass\r\nA: b\r\n\r\n", None),
        (b"AUTHENTICATION-RESULTS: MX.posta.test;\r\n\tspf=pass\r\nA: b\r\n\r\nx", b"A: b\r\n\r\nx"),
        (b"A: b\r\nAuthentication-Results:\r\n mx.posta.test 1; dkim=pass\r\n\r\nx", b"A: b\r\n\r\nx"),
        (b"A: b\r\nAuthentication-Results: mx.posta.test; dkim=pass\r\n", b"A: b\r\n"),
    ],
)
def test_forged_results_of_our_name_go_and_nothing_else_does(before: bytes, after: bytes | None) -> None:
    result = without_forged_results(before, "mx.posta.test")
    assert result == (before if after is None else after)
    if after is None:
        assert result is before
