"""Attachments that run, shapes that no mail program makes, and GTUBE."""

import pytest

from services.core.settings import Filter
from services.filter.engines.policy import GTUBE, findings, is_program, is_refused
from tests.unit.filter.letters import HEAD, PLAIN, PROGRAM, examined, letter, part, zipped

REFUSED = frozenset(Filter().refuse_extensions)


def found(octets: bytes) -> list[tuple[str, str]]:
    return [(finding.symbol, finding.detail) for finding in findings(examined(octets), REFUSED)]


@pytest.mark.parametrize(
    "name",
    [
        "a.exe",
        "A.EXE",
        "invoice.pdf.exe",
        "a.exe. .",
        "C:\\x\\a.lnk",
        "dir/a.js/../b.vbs",
        "a\u202egpj.scr",
        "a. exe",
        ".bat",
    ],
)
def test_names_that_run(name: str) -> None:
    assert is_refused(name, REFUSED)


@pytest.mark.parametrize(
    "name", ["a.pdf", "exe", "a.exe.txt", "archive.tar.gz", "", "...", "notes about.exe files.txt"]
)
def test_names_that_do_not(name: str) -> None:
    assert not is_refused(name, REFUSED)


def test_attachments() -> None:
    assert found(letter(part(b"x", "report.pdf"))) == []
    assert found(letter(part(b"x", "dir/evil.scr"))) == [("ATTACHMENT_TYPE", "evil.scr")]
    encoded = b"Content-Type: a/b\r\nContent-Disposition: attachment; filename*=utf-8''%C3%BC%2Eexe\r\n\r\nx"
    assert found(letter(encoded)) == [("ATTACHMENT_TYPE", "ü.exe")]
    words = b'Content-Type: a/b; name="=?utf-8?b?ZXZpbC5leGU=?="\r\n\r\nx'
    assert found(letter(words)) == [("ATTACHMENT_TYPE", "evil.exe")]


def test_a_program_by_any_name() -> None:
    assert found(letter(part(PROGRAM, "holiday.jpg", "image/jpeg"))) == [
        ("ATTACHMENT_TYPE", "holiday.jpg is a program")
    ]
    assert found(letter(part(PROGRAM, kind="image/jpeg"))) == [("ATTACHMENT_TYPE", "image/jpeg is a program")]
    assert found(letter(part(b"MZ is how a letter may begin. " * 9, "a.txt", "text/plain"))) == []
    assert not is_program(b"MZ")


def test_archived_attachments() -> None:
    inner = zipped(("readme.txt", b"hi"), ("setup.exe", b"x"))
    assert found(letter(part(inner, "a.zip"))) == [("ATTACHMENT_TYPE", "setup.exe in a.zip")]
    assert found(letter(part(zipped(("b.zip", inner)), "a.zip"))) == [("ATTACHMENT_TYPE", "setup.exe in a.zip")]
    assert found(letter(part(zipped(("a.jpg", PROGRAM)), "a.zip"))) == [("ATTACHMENT_TYPE", "a.jpg in a.zip")]
    assert found(letter(part(zipped(("word/document.xml", b"<x/>")), "a.docx"))) == []


def test_an_encrypted_archive_is_noted_and_its_names_are_seen() -> None:
    plain = zipped(("a.txt", b"x" * 30))
    assert found(letter(part(plain[:6] + b"\x01" + plain[7:], "a.zip"))) == [("ARCHIVE_ENCRYPTED", "a.zip")]
    harmful = zipped(("a.exe", b"x" * 30))
    encrypted = harmful[:6] + b"\x01" + harmful[7:]
    assert found(letter(part(encrypted, "a.zip"))) == [("ATTACHMENT_TYPE", "a.exe in a.zip")]


def test_no_extension_is_refused_where_none_is_set() -> None:
    message = examined(letter(part(PROGRAM, "a.exe"), part(zipped(("b.exe", PROGRAM)), "b.zip")))
    assert list(findings(message, frozenset())) == []


def test_shapes() -> None:
    assert found(letter(*[part(b"x")] * 1100)) == [("MESSAGE_SHAPE", "too many parts")]
    assert found(b"X: y\r\n" * 11_000 + PLAIN) == [("MESSAGE_SHAPE", "too many header lines")]
    deep = b"".join(b"Content-Type: multipart/mixed; boundary=%d\r\n\r\n--%d\r\n" % (n, n) for n in range(150))
    assert ("MESSAGE_SHAPE", "parts nested too deep") in found(HEAD + deep)


@pytest.mark.parametrize(
    "octets",
    [
        HEAD + b"\r\nhello\r\n" + GTUBE + b"\r\n",
        letter(part(b"<p>" + GTUBE, kind="text/html")),
        letter(part(letter(part(GTUBE, kind="text/plain")), kind="message/rfc822", encoding="7bit")),
    ],
)
def test_gtube(octets: bytes) -> None:
    assert found(octets) == [("GTUBE", "")]


def test_gtube_in_an_attachment_that_is_no_text_is_nothing() -> None:
    assert found(letter(part(GTUBE, "a.bin"))) == []
