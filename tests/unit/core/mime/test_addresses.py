"""Address lists: RFC 5322 appendix A, and what is really sent."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.mime.addresses import Address, GroupEnd, GroupStart, Mailbox, parse_addresses, read_addresses


def at(name: bytes | None, local: bytes, domain: bytes, route: bytes | None = None) -> Mailbox:
    return Mailbox(name, route, local, domain)


JOE, MARY = at(None, b"joe", b"example.org"), at(b"Mary Smith", b"mary", b"x.test")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", []),
        (b" , ,", []),
        (b"joe@example.org", [JOE]),
        (b"joe@example.org, Mary Smith <mary@x.test>", [JOE, MARY]),
        (b"<joe@example.org>", [JOE]),
        # RFC 5322 A.1.2 and A.1.3
        (b'"Joe Q. Public" <john.q.public@example.com>', [at(b"Joe Q. Public", b"john.q.public", b"example.com")]),
        (b"Who? <one@y.test>", [at(b"Who?", b"one", b"y.test")]),
        (
            b'"Giant; \\"Big\\" Box" <sysservices@example.net>',
            [at(b'Giant; "Big" Box', b"sysservices", b"example.net")],
        ),
        (
            b"A Group:Ed Jones <c@a.test>,joe@where.test,John <jdoe@one.test>;",
            [
                GroupStart(b"A Group"),
                at(b"Ed Jones", b"c", b"a.test"),
                at(None, b"joe", b"where.test"),
                at(b"John", b"jdoe", b"one.test"),
                GroupEnd(),
            ],
        ),
        (b"Undisclosed recipients:;", [GroupStart(b"Undisclosed recipients"), GroupEnd()]),
        (
            b"joe@example.org, Team: Mary Smith <mary@x.test>;, joe@example.org",
            [JOE, GroupStart(b"Team"), MARY, GroupEnd(), JOE],
        ),
        # A.5 and A.6: comments, folding, obsolete routes
        (b"Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>", [at(b"Pete", b"pete", b"silly.test")]),
        (
            b"(Empty list)(start)Hidden recipients  :(nobody(that I know))  ;",
            [GroupStart(b"Hidden recipients"), GroupEnd()],
        ),
        (b"Joe Q. Public <john.q.public@example.com>", [at(b"Joe Q. Public", b"john.q.public", b"example.com")]),
        (
            b"Mary Smith <@node.test,@b.test:mary@x.test>, , jdoe@test  . example",
            [at(b"Mary Smith", b"mary", b"x.test", b"@node.test,@b.test"), at(None, b"jdoe", b"test.example")],
        ),
        (b"joe@example.org (Joe Doe)", [at(b"Joe Doe", b"joe", b"example.org")]),
        (b'"john smith"@example.org', [at(None, b"john smith", b"example.org")]),
        (b'"a\\"b"@example.org', [at(None, b'a"b', b"example.org")]),
        (b"joe . doe @ example.org", [at(None, b"joe.doe", b"example.org")]),
        (b"joe@[192.0.2.1]", [at(None, b"joe", b"[192.0.2.1]")]),
        # encoded words stay as they are; 8-bit too
        (b"=?utf-8?q?J=C3=B6rg?= <j@x.test>", [at(b"=?utf-8?q?J=C3=B6rg?=", b"j", b"x.test")]),
        ("Jörg <jörg@exämple.test>".encode(), [at("Jörg".encode(), "jörg".encode(), "exämple.test".encode())]),
        # what senders do
        (b"a@b.test; c@d.test", [at(None, b"a", b"b.test"), at(None, b"c", b"d.test")]),
        (b"joe@x.test <joe@x.test>", [at(b"joe@x.test", b"joe", b"x.test")]),
        (b"Joe <joe@x.test", [at(b"Joe", b"joe", b"x.test")]),
        (b"Joe <joe@x.test, Mary Smith <mary@x.test>", [at(b"Joe", b"joe", b"x.test"), MARY]),
        (b"Joe <joe@x.test> Mary Smith <mary@x.test>", [at(b"Joe", b"joe", b"x.test"), at(None, b"mary", b"x.test")]),
        (b"postmaster", [at(None, b"postmaster", b"")]),
        (b"<>", [at(None, b"", b"")]),
        (b"Mary <@x.test>", [at(b"Mary", b"", b"x.test")]),
        (b"a@b@c.test", [at(None, b"a@b", b"c.test")]),
        (b'"open <joe@x.test>', [at(None, b"open <joe@x.test>", b"")]),
        (b"(open joe@x.test", []),
        (b"Group: joe@example.org", [GroupStart(b"Group"), JOE, GroupEnd()]),
        (b'"" <joe@example.org>', [JOE]),
    ],
)
def test_lists(raw: bytes, expected: list[Address]) -> None:
    assert parse_addresses(raw) == expected


def test_a_long_list_is_read_to_the_limit() -> None:
    assert len(parse_addresses(b"joe@example.org," * 500, limit=100)) == 100
    assert len(parse_addresses(b'"j"@example.org,' * 500, limit=100)) == 100
    assert read_addresses(b"a@b, c@d", limit=2) == ([at(None, b"a", b"b"), at(None, b"c", b"d")], True)
    assert not read_addresses(b"a@b, c@d, e@f", limit=2)[1]
    assert not read_addresses(b"(" + b"()" * 5 + b")" + b"()" * 100_000)[1]
    assert not read_addresses(b"@" * 100_000)[1]


@settings(deadline=None)
@given(st.binary(max_size=200) | st.text('ab@<>(),:;.\\" []', max_size=60).map(str.encode))
def test_any_octets(raw: bytes) -> None:
    depth = 0
    for address in parse_addresses(raw):
        depth += isinstance(address, GroupStart)
        depth -= isinstance(address, GroupEnd)
        assert depth in (0, 1)
    assert depth == 0


@settings(deadline=None)
@given(st.text('ab@<>(),:;.\\" []', max_size=40).map(str.encode))
def test_a_plain_address_in_front_changes_nothing_behind(raw: bytes) -> None:
    """The short way and the long way through the grammar agree."""
    assert parse_addresses(b"joe@example.org," + raw) == [JOE, *parse_addresses(raw)]
    assert parse_addresses(b'"joe"@example.org,' + raw) == [JOE, *parse_addresses(raw)]
