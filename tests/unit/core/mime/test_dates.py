"""Dates of RFC 5322, of its forebears, and of senders who never read either."""

from datetime import datetime

import pytest

from services.core.mime.dates import parse_date


@pytest.mark.parametrize(
    ("raw", "utc", "offset"),
    [
        (b"Fri, 21 Nov 1997 09:55:06 -0600", "1997-11-21T15:55:06+00:00", -360),
        (b"21 Nov 97 09:55:06 GMT", "1997-11-21T09:55:06+00:00", 0),
        (b"21 Nov 49 09:55 EST", "2049-11-21T14:55:00+00:00", -300),
        (b"21 Nov 50 09:55 PDT", "1950-11-21T16:55:00+00:00", -420),
        (b"21 Nov 100 09:55 Z", "2000-11-21T09:55:00+00:00", 0),
        (b"Thu, 13 Feb 1969 23:32 -0330 (Newfoundland Time)", "1969-02-14T03:02:00+00:00", -210),
        (b"Thu,\t13\tFeb\t1969\t23:32:54 +0530", "1969-02-13T18:02:54+00:00", 330),
        (b"Mon, 23 (a comment) Nov 2026 10:00:00 A", "2026-11-23T10:00:00+00:00", 0),
        (b"Sat, 31 Dec 2016 23:59:60 +0000", "2016-12-31T23:59:59+00:00", 0),
        (b"Mon, 23 November 2026 10:00:00.123 UTC", "2026-11-23T10:00:00+00:00", 0),
        (b"23-Nov-2026 10:00:00 +01:00", "2026-11-23T09:00:00+00:00", 60),
        (b"Mon Nov 23 10:00:00 2026", "2026-11-23T10:00:00+00:00", 0),
        (b"Mon Nov 23 10:00:00 EST 2026", "2026-11-23T15:00:00+00:00", -300),
    ],
)
def test_dates(raw: bytes, utc: str, offset: int) -> None:
    sent = parse_date(raw)
    assert sent is not None
    assert sent.utc == datetime.fromisoformat(utc)
    assert sent.offset == offset


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"yesterday",
        b"32 Nov 2026 10:00:00 +0000",
        b"30 Feb 2026 10:00:00 +0000",
        b"1 Foo 2026 10:00:00 +0000",
        b"1 Jan 0001 00:00:00 +2300",
        b"31 Dec 9999 23:00:00 -2300",
        b"1 Jan 2026 25:00:00 +0000",
        b"1 Jan 2026 10:00:00 +0099",
        b"9" * 1000,
        b"\xff\xfe",
        b"1 Jan 0000 10:00:00 +0000",
    ],
)
def test_what_names_no_moment_is_none(raw: bytes) -> None:
    assert parse_date(raw) is None
