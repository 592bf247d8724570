"""Canonical forms: the example of RFC 6376, ends of bodies, and bodies that are looked at in pieces."""

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.dkim import canonical
from services.core.dkim.canonical import Bodies, body, relaxed, simple

PIECES = st.lists(st.sampled_from([b"\r\n", b"\n", b" ", b"\t", b"a", b"\r", b"  ", b" \r\n"])).map(b"".join)


def whole(octets: bytes, form: str) -> bytes:
    return b"".join(body(octets, 0, form))


def by_the_book(octets: bytes, form: str) -> bytes:
    """RFC 6376 3.4.3 and 3.4.4, line by line."""
    lines = re.split(rb"\r?\n", octets)
    if form == "relaxed":
        lines = [re.sub(rb"[ \t]+", b" ", line).rstrip(b" ") for line in lines]
    while lines and not lines[-1]:
        lines.pop()
    return b"".join(line + b"\r\n" for line in lines) or (b"\r\n" if form == "simple" else b"")


# RFC 6376 3.4.5.
def test_the_forms_of_a_field() -> None:
    assert [relaxed(b"a", b" X \r\n"), relaxed(b"b", b" Y\t\r\n\tZ  \r\n")] == [b"a:X\r\n", b"b:Y Z\r\n"]
    assert [simple(b"A: X \r\n"), simple(b"B : Y\t\r\n\tZ  \r\n")] == [b"A: X \r\n", b"B : Y\t\r\n\tZ  \r\n"]
    assert simple(b"B : Y\t\n\tZ") == b"B : Y\t\r\n\tZ\r\n"


def test_the_forms_of_a_body() -> None:
    assert whole(b" C \r\nD \t E\r\n\r\n\r\n", "relaxed") == b" C\r\nD E\r\n"
    assert whole(b" C \r\nD \t E\r\n\r\n\r\n", "simple") == b" C \r\nD \t E\r\n"


@pytest.mark.parametrize(
    ("octets", "expected", "plain"),
    [
        (b"", b"", b"\r\n"),
        (b"\r\n\r\n", b"", b"\r\n"),
        (b" \t\r\n\r\n", b"", b" \t\r\n"),
        (b"a", b"a\r\n", b"a\r\n"),
        (b"a  ", b"a\r\n", b"a  \r\n"),
        (b"a\r\n \r\n", b"a\r\n", b"a\r\n \r\n"),
        (b"a\r\r\n\r\n", b"a\r\r\n", b"a\r\r\n"),
        (b"a \nb\n\n", b"a\r\nb\r\n", b"a \r\nb\r\n"),
    ],
)
def test_the_end_of_a_body(octets: bytes, expected: bytes, plain: bytes) -> None:
    assert whole(octets, "relaxed") == expected
    assert whole(octets, "simple") == plain


@pytest.mark.parametrize("form", ["relaxed", "simple"])
@given(octets=PIECES, block=st.integers(1, 5))
def test_any_body_in_pieces_is_what_the_rfc_says(form: str, octets: bytes, block: int) -> None:
    kept, canonical._BLOCK = canonical._BLOCK, block
    try:
        assert whole(octets, form) == by_the_book(octets, form)
    finally:
        canonical._BLOCK = kept


@given(head=st.binary(max_size=4), octets=PIECES, length=st.none() | st.integers(0, 20))
def test_a_hash_is_of_the_body_behind_the_header_or_of_its_first_octets(
    head: bytes, octets: bytes, length: int | None
) -> None:
    bodies = Bodies(head + octets, len(head))
    expected = by_the_book(octets, "relaxed")
    assert bodies.length("relaxed") == len(expected)
    assert bodies.sha256("relaxed", length) == hashlib.sha256(expected[:length]).digest()
