"""Sections of a stored message, served by its part table."""

import base64
import quopri

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.mime.parts import PartEntry, decode_parts, encode_parts
from services.core.mime.section import Kind, Section, decode_body, filter_header, parse_section, read_section, spans
from services.core.mime.structure import parse

HEADER = b'Subject: outer\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n'
INNER_HEADER = b"Subject: inner\r\nX: y\r\n\r\n"
INNER = INNER_HEADER + b"inner text\r\n"
ENCLOSED_MIME = b"Content-Type: message/rfc822\r\nContent-ID: <1@x>\r\n\r\n"
ALTERNATIVE = (
    b"Subject: third\r\nContent-Type: multipart/alternative; boundary=c\r\n\r\n"
    b"--c\r\n\r\nA\r\n--c\r\nContent-Type: text/html; charset=utf-8\r\n\r\nB\r\n--c--"
)
BODY = (
    b"--b\r\n\r\ntext\r\n--b\r\n" + ENCLOSED_MIME + INNER + b"\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n"
    + ALTERNATIVE + b"\r\n--b--\r\n"
)  # fmt: skip
MESSAGE = HEADER + BODY


def fetch(raw: bytes, section: bytes) -> bytes | None:
    parsed = parse_section(section)
    assert parsed is not None, section
    return read_section(decode_parts(encode_parts(parse(raw))), parsed, lambda start, end: raw[start:end])


@pytest.mark.parametrize(
    ("section", "octets"),
    [
        (b"", MESSAGE),
        (b"HEADER", HEADER),
        (b"TEXT", BODY),
        (b"header.fields (SUBJECT)", b"Subject: outer\r\n\r\n"),
        (b"HEADER.FIELDS.NOT (Subject)", HEADER.removeprefix(b"Subject: outer\r\n")),
        (b'HEADER.FIELDS ("nothing" To)', b"\r\n"),
        (b"1", b"text"),
        (b"1.MIME", b"\r\n"),
        (b"1.HEADER", None),
        (b"1.TEXT", None),
        (b"1.1", None),
        (b"2", INNER),
        (b"2.MIME", ENCLOSED_MIME),
        (b"2.HEADER", INNER_HEADER),
        (b"2.TEXT", b"inner text\r\n"),
        (b"2.HEADER.FIELDS (x)", b"X: y\r\n\r\n"),
        (b"2.HEADER.FIELDS.NOT (x)", b"Subject: inner\r\n\r\n"),
        (b"2.1", b"inner text\r\n"),
        (b"2.1.MIME", INNER_HEADER),
        (b"2.2", None),
        (b"3.HEADER", ALTERNATIVE[: ALTERNATIVE.index(b"--c")]),
        (b"3.TEXT", ALTERNATIVE[ALTERNATIVE.index(b"--c") :]),
        (b"3.1", b"A"),
        (b"3.2", b"B"),
        (b"3.2.MIME", b"Content-Type: text/html; charset=utf-8\r\n\r\n"),
        (b"4", None),
        (b"999999", None),
    ],
)
def test_sections(section: bytes, octets: bytes | None) -> None:
    assert fetch(MESSAGE, section) == octets


@pytest.mark.parametrize(
    ("section", "octets"),
    [
        (b"1", b"text"),
        (b"1.MIME", b"A: b\r\n\r\n"),
        (b"TEXT", b"text"),
        (b"HEADER", b"A: b\r\n\r\n"),
        (b"1.TEXT", None),
        (b"2", None),
    ],
)
def test_a_message_without_parts_is_its_own_part_one(section: bytes, octets: bytes | None) -> None:
    assert fetch(b"A: b\r\n\r\ntext", section) == octets


def test_a_message_that_is_nothing_but_a_message() -> None:
    raw = b"Content-Type: message/rfc822\r\n\r\n" + INNER
    assert fetch(raw, b"HEADER") == b"Content-Type: message/rfc822\r\n\r\n"
    assert fetch(raw, b"1.HEADER") == INNER_HEADER
    assert fetch(raw, b"1.TEXT") == fetch(raw, b"1.1") == b"inner text\r\n"
    assert fetch(raw, b"TEXT") == fetch(raw, b"1") == INNER


@pytest.mark.parametrize(
    "section",
    [
        b"MIME",
        b"0",
        b"1.",
        b".1",
        b"1..2",
        b"01",
        b"1.FOO",
        b"HEADER.FIELDS",
        b"HEADER.FIELDS ()",
        b"1HEADER",
        b"HEADER TEXT",
    ],
)
def test_no_section(section: bytes) -> None:
    assert parse_section(section) is None


def test_the_parsed_section_names_its_fields_in_lower_case() -> None:
    assert parse_section(b"1.2.Header.Fields.Not (Date X-Y)") == Section(
        (1, 2), Kind.HEADER_FIELDS_NOT, frozenset({b"date", b"x-y"})
    )


def test_the_table_keeps_what_a_decoder_needs() -> None:
    table = decode_parts(encode_parts(parse(MESSAGE)))
    assert table["3.2"][4:] == ("text", "html", "7bit", "utf-8")
    assert not table["3.2"].is_message
    assert table["2"].is_message
    assert len(encode_parts(parse(b"Subject: x\r\n\r\nhi"))) < 40
    assert decode_parts(encode_parts(parse(b""))) == {
        path: PartEntry(0, 0, 0, -1, "text", "plain", "7bit", "") for path in ("", "1")
    }
    with pytest.raises(ValueError, match="unknown version"):
        decode_parts(b"9")
    with pytest.raises(ValueError, match="unknown version"):
        decode_parts(b"")


def test_a_charset_cannot_break_the_table() -> None:
    raw = b'Content-Type: text/pl\x00\xe9in; charset="a\tb\nc\xff"\r\nContent-Transfer-Encoding: \x0b\xe9x\r\n\r\n'
    assert decode_parts(encode_parts(parse(raw)))["1"].type == "text"


@pytest.mark.parametrize(
    ("header", "only", "others"),
    [
        (b"", b"\r\n", b"\r\n"),
        (b"\r\n", b"\r\n", b"\r\n"),
        (b"To: a\r\nX: 1\r\n 2\r\nTO : b\r\n\r\n", b"To: a\r\nTO : b\r\n\r\n", b"X: 1\r\n 2\r\n\r\n"),
        (b"To: a\n\tb\nX: 1\n\n", b"To: a\n\tb\n\r\n", b"X: 1\n\r\n"),
        (b"To-Do: a\r\nto: \xff\r\n\r\n", b"to: \xff\r\n\r\n", b"To-Do: a\r\n\r\n"),
        (b"From a@b Mon\r\n To: folded\r\nTo: a", b"To: a\r\n\r\n", b"From a@b Mon\r\n To: folded\r\n\r\n"),
        (b"X: 1\r\nTo:\r\n\r\n", b"To:\r\n\r\n", b"X: 1\r\n\r\n"),
    ],
)
def test_filtering_a_header(header: bytes, only: bytes, others: bytes) -> None:
    assert filter_header(header, frozenset({b"to"})) == only
    assert filter_header(header, frozenset({b"to"}), negate=True) == others
    assert filter_header(header, frozenset()) == b"\r\n"


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from([b"To: a", b"X:b", b" fold", b"junk", b"\r\n", b"\n", b"\r", b"To :", b"\x00"]), max_size=20
    )
)
def test_both_filters_together_lose_no_line(pieces: list[bytes]) -> None:
    raw = b"".join(pieces)
    header = raw[: parse(raw).header_length]
    kept = filter_header(header, frozenset({b"to"})) + filter_header(header, frozenset({b"to"}), negate=True)
    lines = sorted(line.strip() for line in header.split(b"\n") if line.strip(b"\r"))
    assert sorted(line.strip() for line in kept.split(b"\n") if line.strip(b"\r")) == lines


@pytest.mark.parametrize(
    ("raw", "encoding", "decoded"),
    [
        (b"aGVsbG8=\r\n", "base64", b"hello"),
        (b"aGVs\r\nbG8", "base64", b"hello"),
        (b"aGVsbG", "base64", b"hell"),
        (b"aGVsb", "base64", b"hel"),
        (b"a!G*Vsb G8=", "base64", b"hello"),
        (b"====", "base64", b""),
        (b"\xff\x00", "base64", b""),
        (b"a=3Db=\r\nc=ZZ =", "quoted-printable", b"a=bc=ZZ "),
        (b"a=3Db", "7bit", b"a=3Db"),
        (b"a=3Db", "x-unknown", b"a=3Db"),
    ],
)
def test_decoding_bodies(raw: bytes, encoding: str, decoded: bytes) -> None:
    assert decode_body(raw, encoding) == decoded


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_decoding_what_others_encoded_and_anything_else(octets: bytes) -> None:
    assert decode_body(base64.encodebytes(octets), "base64") == octets
    assert decode_body(quopri.encodestring(octets), "quoted-printable") == octets
    decode_body(octets, "base64")
    decode_body(octets, "quoted-printable")


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_every_row_of_every_table_is_a_slice(noise: bytes) -> None:
    at = len(noise) * 7 % len(MESSAGE)
    raw = MESSAGE[:at] + noise + MESSAGE[at:]
    table = decode_parts(encode_parts(parse(raw)))
    for path, entry in table.items():
        assert 0 <= entry.header_start <= entry.body_start <= entry.body_end <= len(raw)
        section = Section(tuple(int(n) for n in path.split(".")) if path else ())
        assert spans(table, section) is not None
