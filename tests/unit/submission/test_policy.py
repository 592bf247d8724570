"""Whose a message says it is, and what the door adds: read from bytes a user could send."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from services.core.ids import SpoolId
from services.submission.policy import Letter, NotSent, read
from services.submission.stamp import missing

NOW = datetime(2026, 11, 24, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "authors"),
    [
        (b"From: alice@posta.test\r\n", ["alice@posta.test"]),
        (b'from: "Alice, A." <Alice@Posta.Test>\r\n', ["Alice@posta.test"]),
        (b"From: a@x.test,\r\n\tB <b@x.test>\r\n", ["a@x.test", "b@x.test"]),
        (b"Subject: From: eve@evil.test\r\nFrom: =?utf-8?q?J=C3=B6rg?= <j@x.test>\r\n", ["j@x.test"]),
        ("From: Jörg <jörg@bücher.test>\r\n".encode(), ["jörg@xn--bcher-kva.test"]),
    ],
)
def test_every_author_is_read(header: bytes, authors: list[str]) -> None:
    assert [str(a) for a in read(header + b"\r\nFrom: body@is.not.header\r\n").authors] == authors


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\r\n",
        b"Subject: no author\r\n\r\nFrom: alice@posta.test\r\n",
        b"From: alice@posta.test\r\nFrom: eve@evil.test\r\n\r\n",
        b"From:\r\n\r\n",
        b"From: friends: alice@posta.test;\r\n\r\n",
        b"From: alice\r\n\r\n",
        b"From: <alice@posta.test\r\n\r\n"[:6] + b"@@\r\n\r\n",
        b"\xff\xfe\x00",
    ],
)
def test_what_does_not_name_its_author_is_not_sent(message: bytes) -> None:
    with pytest.raises(NotSent):
        read(message)


def test_date_and_message_id_are_added_where_they_are_missing() -> None:
    author = read(b"From: a@x.test\r\n\r\n").authors
    both = missing(Letter(author, False, False), NOW, SpoolId("01h"), "mail.x.test")
    assert both == b"Date: Tue, 24 Nov 2026 12:30:00 +0000\r\nMessage-ID: <01h@mail.x.test>\r\n"
    assert missing(read(b"From: a@x.test\r\nDATE: x\r\nmessage-id: <y>\r\n\r\n"), NOW, SpoolId("01h"), "h") == b""
