"""Encoded words and charsets as senders write them."""

import pytest

from services.core.mime.words import clean, codec, decode_charset, decode_words, fold


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        # RFC 2047 section 8, the examples
        (b"(=?ISO-8859-1?Q?a?=)", "(a)"),
        (b"(=?ISO-8859-1?Q?a?= b)", "(a b)"),
        (b"(=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b?=)", "(ab)"),
        (b"(=?ISO-8859-1?Q?a?=  =?ISO-8859-1?Q?b?=)", "(ab)"),
        (b"(=?ISO-8859-1?Q?a_b?=)", "(a b)"),
        (b"(=?ISO-8859-1?Q?a?= =?ISO-8859-2?Q?_b?=)", "(a b)"),
        (b"=?ISO-8859-1?Q?Andr=E9?= Pirard", "André Pirard"),
        (
            b"=?ISO-8859-1?B?SWYgeW91IGNhbiByZWFkIHRoaXMgeW8=?= =?ISO-8859-2?B?dSB1bmRlcnN0YW5kIHRoZSBleGFtcGxlLg==?=",
            "If you can read this you understand the example.",
        ),
        # cut inside a character, without padding, with blanks inside, without a space between
        (b"=?utf-8?B?w7w=?==?utf-8?Q?=C3?= =?UTF-8?Q?=BC?=", "üü"),
        (b"=?utf-8?B?w7w?=", "ü"),
        (b"=?utf-8?Q?two words?=", "two words"),
        (b"=?utf-8*de?Q?gr=C3=BCn?=", "grün"),
        (b"=?gb2312?B?xOO6ww==?=", "你好"),
        (b"=?iso-2022-jp?B?GyRCRnxLXBsoQg==?=", "日本"),
        (b"=?windows-1252?Q?=80?= =?iso-8859-1?Q?=80?=", "€€"),
        # no charset, no encoding, no end
        (b"=?x-nothing?Q?a=FCb?=", "a\ufffdb"),
        (b"=?utf-8?X?abc?=", "=?utf-8?X?abc?="),
        (b"=?utf-8?Q?abc", "=?utf-8?Q?abc"),
        (b"=?unicode_escape?Q?=5Cud800?=", "\\ud800"),
        (b"=?utf-8?B?A?= x", " x"),
        # raw 8-bit
        ("grün".encode(), "grün"),
        ("grün".encode("latin-1"), "grün"),
        (b"", ""),
    ],
)
def test_words(raw: bytes, text: str) -> None:
    assert decode_words(raw) == text


@pytest.mark.parametrize(
    "name", ["idna", "punycode", "hex", "zip", "rot13", "unicode_escape", "../utf-8", "", "ü", "a\x00"]
)
def test_what_is_no_charset_is_not_looked_up_as_one(name: str) -> None:
    assert codec(name) is None


def test_no_charset_smuggles_a_surrogate() -> None:
    text = decode_charset(b"+2AA-", "utf-7")
    text.encode()
    assert clean("a\x00b") == "a b"


@pytest.mark.parametrize("octet", range(256))
def test_folding_by_table_is_casefolding(octet: int) -> None:
    text = "Ünï " * 100 + chr(octet)
    assert fold(text) == text.casefold()
