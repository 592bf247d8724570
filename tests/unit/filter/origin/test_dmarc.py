"""DMARC: where policies are found, who is aligned, what is asked for."""

import pytest

from services.core.dns import DnsUnavailable
from services.core.mime.structure import parse
from services.filter.origin import dmarc
from services.filter.origin.dmarc import Outcome, Policy, Proof, Suffixes, Wish
from services.filter.origin.results import Result
from tests.unit.filter.origin.zone import DEAD, Zone

SUFFIXES = Suffixes()


def record(text: str) -> dict[str, list[str]]:
    return {"_dmarc.example.co.uk": [f"TXT {text}"]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("v=DMARC1; p=reject", Policy("example.co.uk", Wish.REJECT)),
        ("v=DMARC1;p=quarantine;", Policy("example.co.uk", Wish.QUARANTINE)),
        ("v=DMARC1; p=NONE", Policy("example.co.uk", Wish.NONE)),
        ("v=DMARC1; p=reject; adkim=s; aspf=s", Policy("example.co.uk", Wish.REJECT, True, True)),
        ("v=DMARC1; p=reject; adkim=x; aspf=r", Policy("example.co.uk", Wish.REJECT)),
        ("v=DMARC1; p=reject; pct=5", Policy("example.co.uk", Wish.REJECT, percent=5)),
        ("v=DMARC1; p=reject; pct=500", Policy("example.co.uk", Wish.REJECT)),
        ("v=DMARC1; p=reject; pct=-5", Policy("example.co.uk", Wish.REJECT)),
        ("v=DMARC1; p=reject; sp=none", Policy("example.co.uk", Wish.REJECT)),
        ("v=DMARC1; p=perhaps", None),
        ("v=DMARC1", None),
        ("v=DMARC1; p=perhaps; rua=mailto:a@example.co.uk", Policy("example.co.uk", Wish.NONE)),
        ("v=dmarc1; p=reject", None),
        ("p=reject; v=DMARC1", None),
        ("v=DMARC1 p=reject", None),
        ("v=spf1 -all", None),
    ],
)
async def test_records(text: str, expected: Policy | None) -> None:
    assert await dmarc.discover(Zone(record(text)), SUFFIXES, "example.co.uk") == expected


async def test_the_organization_speaks_for_what_is_below_it() -> None:
    zone = Zone(record("v=DMARC1; p=reject; sp=quarantine"))
    assert await dmarc.discover(zone, SUFFIXES, "a.b.example.co.uk") == Policy("example.co.uk", Wish.QUARANTINE)
    # Two questions, however deep the name.
    assert [name for name, _ in zone.asked] == ["_dmarc.a.b.example.co.uk", "_dmarc.example.co.uk"]
    assert await dmarc.discover(Zone(record("v=DMARC1; p=reject")), SUFFIXES, "b.example.co.uk") == Policy(
        "example.co.uk", Wish.REJECT
    )
    own = record("v=DMARC1; p=reject") | {"_dmarc.b.example.co.uk": ["TXT v=DMARC1; p=none"]}
    assert await dmarc.discover(Zone(own), SUFFIXES, "b.example.co.uk") == Policy("b.example.co.uk", Wish.NONE)


async def test_a_public_suffix_speaks_for_nobody() -> None:
    zone = Zone({"_dmarc.co.uk": ["TXT v=DMARC1; p=reject"]})
    assert await dmarc.discover(zone, SUFFIXES, "example.co.uk") is None


async def test_several_records_are_none() -> None:
    zone = Zone({"_dmarc.example.co.uk": ["TXT v=DMARC1; p=reject", "TXT v=DMARC1; p=none"]})
    assert await dmarc.discover(zone, SUFFIXES, "example.co.uk") is None
    zone = Zone({"_dmarc.example.co.uk": ["TXT hello", "TXT v=DMARC1; p=reject"]})
    assert await dmarc.discover(zone, SUFFIXES, "example.co.uk") is not None


async def test_no_answer_is_not_no_policy() -> None:
    with pytest.raises(DnsUnavailable):
        await dmarc.discover(Zone({"_dmarc.example.co.uk": [DEAD]}), SUFFIXES, "example.co.uk")


RELAXED, STRICT = Policy("example.co.uk", Wish.REJECT), Policy("example.co.uk", Wish.REJECT, True, True)


@pytest.mark.parametrize(
    ("method", "result", "domain", "relaxed", "strict"),
    [
        ("dkim", "pass", "example.co.uk", "pass", "pass"),
        ("spf", "pass", "example.co.uk", "pass", "pass"),
        ("dkim", "pass", "mail.example.co.uk", "pass", "fail"),
        ("spf", "pass", "mail.example.co.uk", "pass", "fail"),
        ("dkim", "pass", "other.co.uk", "fail", "fail"),
        ("dkim", "pass", "co.uk", "fail", "fail"),
        ("dkim", "pass", "notexample.co.uk", "fail", "fail"),
        ("dkim", "pass", "", "fail", "fail"),
        ("dkim", "fail", "example.co.uk", "fail", "fail"),
        ("dkim", "policy", "example.co.uk", "fail", "fail"),
        ("spf", "softfail", "example.co.uk", "fail", "fail"),
        ("spf", "neutral", "example.co.uk", "fail", "fail"),
        ("spf", "temperror", "example.co.uk", "temperror", "temperror"),
        ("dkim", "temperror", "mail.example.co.uk", "temperror", "fail"),
        ("dkim", "temperror", "other.co.uk", "fail", "fail"),
        ("dkim", "permerror", "example.co.uk", "fail", "fail"),
    ],
)
def test_alignment(method: str, result: str, domain: str, relaxed: str, strict: str) -> None:
    proofs = [Proof(method, Result(result), domain), Proof("dkim", Result.PASS, "spammer.example")]
    for policy, expected in ((RELAXED, relaxed), (STRICT, strict)):
        judged = dmarc.judge("example.co.uk", policy, proofs, SUFFIXES, 0)
        assert judged.result == expected
        assert judged.wish is (Wish.NONE if expected == "pass" else Wish.REJECT)


def test_each_method_has_a_strictness_of_its_own() -> None:
    policy = Policy("example.co.uk", Wish.REJECT, strict_dkim=True)
    below = [Proof("dkim", Result.PASS, "mail.example.co.uk")]
    assert dmarc.judge("example.co.uk", policy, below, SUFFIXES, 0).result is Result.FAIL
    below = [Proof("spf", Result.PASS, "mail.example.co.uk")]
    assert dmarc.judge("example.co.uk", policy, below, SUFFIXES, 0).result is Result.PASS


def test_a_suffix_is_its_own_organization() -> None:
    proofs = [Proof("dkim", Result.PASS, "b.github.io")]
    assert dmarc.judge("a.github.io", Policy("a.github.io", Wish.REJECT), proofs, SUFFIXES, 0).result is Result.FAIL


@pytest.mark.parametrize(
    ("wish", "percent", "sample", "expected"),
    [
        ("reject", 100, 99, "reject"),
        ("reject", 30, 29, "reject"),
        ("reject", 30, 30, "quarantine"),
        ("quarantine", 30, 30, "none"),
        ("reject", 0, 0, "quarantine"),
        ("none", 100, 0, "none"),
    ],
)
def test_sampling(wish: str, percent: int, sample: int, expected: str) -> None:
    judged = dmarc.judge("example.org", Policy("example.org", Wish(wish), percent=percent), [], SUFFIXES, sample)
    assert (judged.result, judged.wish) == (Result.FAIL, expected)


def test_without_an_answer_only_what_is_proven_passes() -> None:
    assert dmarc.unknown("example.org", "", [], SUFFIXES).wish is Wish.REJECT
    assert dmarc.unknown("example.org", "", [Proof("spf", Result.PASS, "m.example.org")], SUFFIXES).wish is Wish.NONE


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"From: a@example.org", ["example.org"]),
        (b"From: \"x@evil.example\" <a@Example.ORG>", ["example.org"]),
        (b"From: a@example.org, b@other.example", ["example.org", "other.example"]),
        (b"From: a@example.org\r\nFrom: b@other.example", ["example.org", "other.example"]),
        (b"From: friends: a@example.org, b@example.org;", ["example.org"]),
        ("From: a@b\u00fccher.example".encode(), ["xn--bcher-kva.example"]),
        (b"From: a@example.org.", ["example.org"]),
        (b"From: a@[192.0.2.1]", []),
        (b"From: nobody", []),
        (b"Subject: none", []),
    ],
)  # fmt: skip
def test_authors(header: bytes, expected: list[str]) -> None:
    octets = header + b"\r\n\r\n"
    assert dmarc.authors(octets, parse(octets).root.fields) == (tuple(expected), False)


@pytest.mark.parametrize("domain", ["bank..example", "bank.example-", "b\x7fank.example", "\udcff.example", "-"])
def test_an_author_that_cannot_be_asked_about(domain: str) -> None:
    octets = f"From: info@{domain}, a@example.org\r\n\r\n".encode("utf-8", "surrogateescape")
    assert dmarc.authors(octets, parse(octets).root.fields) == (("example.org",), True)


def test_the_gravest_decides() -> None:
    mild, grave = Outcome("a", Result.FAIL, wish=Wish.QUARANTINE), Outcome("b", Result.FAIL, wish=Wish.REJECT)
    passed, none = Outcome("c", Result.PASS), Outcome("d", Result.NONE)
    assert dmarc.gravest([passed, mild, grave]) is grave
    assert dmarc.gravest([passed, none]) is none
    assert dmarc.gravest([]) is None
