"""RFC 5321 4.1.2 and RFC 6531 3.3, case by case."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.address import Address, BadAddress, parse, parse_path


@pytest.mark.parametrize(
    ("text", "local", "domain"),
    [
        ("Bob@EXAMPLE.org", "Bob", "example.org"),
        ("bob+news@posta.test", "bob+news", "posta.test"),
        ('"john \\"j\\" doe"@posta.test', 'john "j" doe', "posta.test"),
        ('"a>b@c"@posta.test', "a>b@c", "posta.test"),
        ("postmaster@localhost", "postmaster", "localhost"),
        ("a@[192.0.2.1]", "a", "[192.0.2.1]"),
        ("a@[IPv6:2001:DB8::0:1]", "a", "[ipv6:2001:db8::1]"),
        ("info@bücher.example", "info", "xn--bcher-kva.example"),
        ("info@BÜCHER.example", "info", "xn--bcher-kva.example"),
        # IDNA 2008 keeps the sharp s; IDNA 2003 would send this mail to another domain.
        ("info@faß.example", "info", "xn--fa-hia.example"),
        ("пётр@почта.рф", "пётр", "xn--80a1acny.xn--p1ai"),
    ],
)
def test_what_an_address_means(text: str, local: str, domain: str) -> None:
    assert parse(text) == Address(local, domain)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "local part is not valid"),
        ("bob", "domain is missing"),
        ("bob@", "domain is missing"),
        ("@posta.test", "local part is not valid"),
        (".bob@posta.test", "local part is not valid"),
        ("bob.@posta.test", "local part is not valid"),
        ("b..ob@posta.test", "local part is not valid"),
        ("bo b@posta.test", "local part is not valid"),
        ('"bob@posta.test', "local part is not valid"),
        ("bob@posta..test", "empty part"),
        ("bob@posta.test.", "empty part"),
        ("bob@-posta.test", "character that domains do not have"),
        ("bob@posta.test\r\nRCPT", "character that domains do not have"),
        ("bob@posta.test x", "unexpected characters"),
        ("bob@[192.0.2.256]", "not an IPv4 or IPv6 address"),
        ("bob@[IPv6:192.0.2.1]", "not an IPv4 or IPv6 address"),
        ("bob@[192.0.2.1", "not closed"),
        ("b\u0085b@posta.test", "character that addresses do not have"),
        ("b\u2028b@posta.test", "character that addresses do not have"),
        ("bob@a\u200db.test", "internationalised"),
        ("x" * 65 + "@posta.test", "longer than 64 octets"),
        ("é" * 33 + "@posta.test", "longer than 64 octets"),
        ("bob@" + "x" * 64 + ".test", "longer than 63 octets"),
        ("bob@" + "x." * 127 + "test", "longer than 255 octets"),
        ("bob@" + "é." * 127 + "test", "longer than 255 octets"),
    ],
)
def test_what_is_no_address_and_why(text: str, why: str) -> None:
    with pytest.raises(BadAddress, match=why):
        parse(text)


@pytest.mark.parametrize(
    ("text", "address", "rest"),
    [
        ("<>", None, ""),
        ("<> BODY=8BITMIME", None, " BODY=8BITMIME"),
        ("<bob@posta.test> SIZE=5", Address("bob", "posta.test"), " SIZE=5"),
        ("<@a.test,@b.test:bob@posta.test>", Address("bob", "posta.test"), ""),
        ('<"a> SIZE=1"@posta.test> SIZE=2', Address("a> SIZE=1", "posta.test"), " SIZE=2"),
        ("<Postmaster>", Address("postmaster", "mx.posta.test"), ""),
    ],
)
def test_the_path_of_mail_and_rcpt(text: str, address: Address | None, rest: str) -> None:
    assert parse_path(text, postmaster_at="mx.posta.test") == (address, rest)


@pytest.mark.parametrize(
    "text", ["bob@posta.test", "<bob@posta.test", "<bob>", "< bob@posta.test>", "<bob@posta.test >"]
)
def test_a_path_must_be_whole(text: str) -> None:
    with pytest.raises(BadAddress):
        parse_path(text)


def test_a_path_has_a_limit_of_its_own() -> None:
    long = "x" * 60 + "@" + ".".join(["y" * 60] * 4)
    parse(long)
    with pytest.raises(BadAddress, match="path is longer than 256"):
        parse_path(f"<{long}>")


def test_a_foreign_sender_may_have_a_long_local_part() -> None:
    verp = "bounces-" + "x" * 80 + "@lists.test"
    with pytest.raises(BadAddress):
        parse(verp)
    assert parse_path(f"<{verp}>", longest_local=128)[0] == parse(verp, longest_local=128)


def test_mailboxes_are_equal_by_key() -> None:
    assert parse("Bob@Posta.Test").key == parse('"bob"@posta.test').key == "bob@posta.test"
    assert parse("JOSE\u0301@posta.test").key == parse("josé@posta.test").key


@pytest.mark.parametrize(
    ("text", "user", "detail"),
    [
        ("bob+tag@p.test", "bob", "tag"),
        ("bob+a+b@p.test", "bob", "a+b"),
        ("bob+@p.test", "bob", ""),
        ("bob@p.test", "bob", ""),
        ("+tag@p.test", "+tag", ""),
    ],
)
def test_subaddress(text: str, user: str, detail: str) -> None:
    assert parse(text).subaddress() == (Address(user, "p.test"), detail)


def test_people_see_unicode() -> None:
    address = parse("info@xn--bcher-kva.example")
    assert address.unicode_domain == "bücher.example"
    assert not address.needs_smtputf8
    assert parse("пётр@posta.test").needs_smtputf8


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=64))
def test_every_printable_local_part_can_be_written_and_read(local: str) -> None:
    address = Address(local, "posta.test")
    assert parse(str(address)) == address
    assert parse_path(f"<{address}> SIZE=1") == (address, " SIZE=1")


@given(st.text(max_size=300))
def test_any_text_is_an_address_or_a_bad_one(text: str) -> None:
    for read in (parse, parse_path):
        with contextlib.suppress(BadAddress):
            read(text)
