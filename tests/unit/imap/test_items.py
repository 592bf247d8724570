"""FETCH items: columns to lines, sections to slices."""

from typing import Any

import pytest

from services.core.mime.facts import facts
from services.core.mime.section import parse_section
from services.imap import items
from services.imap.flagtext import Keywords
from services.imap.items import Context, Octets, Slice

MESSAGE = (
    b"Subject: nested\r\nX-Odd: 1\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\nContent-Type: text/plain\r\n\r\none\r\n"
    b"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\ninside\r\n--b--\r\n"
)


def octets(section: str, partial: tuple[int, int] | None = None) -> Octets:
    parsed = parse_section(section.encode())
    assert parsed is not None
    return Octets(f"BODY[{section}]".encode(), parsed, partial)


def row() -> dict[str, Any]:
    found = facts(MESSAGE)
    return {"size": len(MESSAGE), "header_length": found.header_length, "parts": found.parts}


def fetched(item: Octets) -> bytes:
    where = items.where(item, row())
    cut = 0 if where is None else min(where.start + 7, where.end)  # it comes in two pieces, the prefix and the blob
    before, octets = (b"", None) if where is None else (MESSAGE[where.start : cut], MESSAGE[cut : where.end])
    return b"".join(items.render(item, before, octets))


def test_a_page_is_one_format() -> None:
    keywords = Keywords(read_only=False)
    columns = {
        "uid": (5, 9), "bits": (16, 3), "keywords": ([], ["Work"]), "internal_date": (0, 1_700_000_000),
        "size": (10, 20), "envelope": (b"(1)", b"(%d)"),
    }  # fmt: skip
    wanted = [items.UID, items.FLAGS, items.INTERNALDATE, items.SIZE, items.ENVELOPE]
    assert items.lines(wanted, Context(9, keywords), (1, 3), columns, b"FETCH") == (
        b'* 1 FETCH (UID 5 FLAGS (\\Seen) INTERNALDATE " 1-Jan-1970 00:00:00 +0000" RFC822.SIZE 10 ENVELOPE (1))\r\n'
        b"* 3 FETCH (UID 9 FLAGS (\\Answered \\Flagged \\Recent Work) "
        b'INTERNALDATE "14-Nov-2023 22:13:20 +0000" RFC822.SIZE 20 ENVELOPE (%d))\r\n'
    )
    assert b"Work" in keywords.news()
    assert keywords.news() == b""


def test_header_lines_that_delivery_set_aside_need_no_message() -> None:
    wanted = [octets("HEADER.FIELDS (SUBJECT)")]
    assert items.only_columns(wanted)
    assert items.columns_of(wanted) == ("uid", "head")
    columns = {"uid": (1,), "head": (facts(MESSAGE).head,)}
    assert items.lines(wanted, Context(9, Keywords(read_only=True)), (1,), columns, b"FETCH") == (
        b"* 1 FETCH (BODY[HEADER.FIELDS (SUBJECT)] {19}\r\nSubject: nested\r\n\r\n)\r\n"
    )
    assert not items.only_columns([octets("HEADER.FIELDS (X-ODD)")])


@pytest.mark.parametrize(
    ("section", "partial", "found"),
    [
        ("1", None, b"{3}\r\none"),
        ("1", (1, 100), b"{2}\r\nne"),
        ("1", (50, 1), b"{0}\r\n"),
        ("1.MIME", None, b"{28}\r\nContent-Type: text/plain\r\n\r\n"),
        ("2.HEADER", None, b"{18}\r\nSubject: inner\r\n\r\n"),
        ("2.TEXT", None, b"{6}\r\ninside"),
        ("2.1", None, b"{6}\r\ninside"),
        ("HEADER.FIELDS (X-Odd)", (2, 3), b"{3}\r\nOdd"),
        ("3", None, b"NIL"),
        ("1.HEADER", None, b"NIL"),
    ],
)
def test_sections(section: str, partial: tuple[int, int] | None, found: bytes) -> None:
    assert fetched(octets(section, partial)) == b"BODY[%b] %b" % (section.encode(), found)


def test_a_partial_fetch_reads_only_its_part() -> None:
    assert items.where(octets("", (10, 5)), row()) == Slice(10, 15)
    assert items.where(octets("TEXT", (1, 2)), row()) == Slice(row()["header_length"] + 1, row()["header_length"] + 3)
