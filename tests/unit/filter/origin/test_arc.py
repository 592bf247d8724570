"""ARC: chains that another's sealer makes, whole and broken."""

import re
from collections.abc import Mapping

import dkim as dkimpy
import pytest

from services.core.dkim.canonical import Bodies
from services.core.mime.structure import parse
from services.filter.origin import arc, dkim
from services.filter.origin.results import Result
from tests.unit.filter.origin.zone import DEAD, Signer, Zone

LIST, RELAY, COLLEGE = Signer("lists.example.org"), Signer("relay.example.net"), Signer("college.example")
ZONE = LIST.zone() | RELAY.zone() | COLLEGE.zone()
LETTER = b"From: Ann <ann@author.example>\r\nTo: list@lists.example.org\r\nSubject: hello\r\nDate: today\r\n\r\nHi.\r\n"


def sealed(
    octets: bytes, by: Signer, results: str = "dmarc=pass header.from=author.example", cv: str = "pass"
) -> bytes:
    """What `by` passes on: its set on top, made by dkimpy from an Authentication-Results of its own."""
    told = f"Authentication-Results: mx.{by.domain}; arc={cv}; {results}\r\n".encode()
    made = dkimpy.arc_sign(told + octets, b"rsa", by.domain.encode(), by.rsa, f"mx.{by.domain}".encode())
    assert made, "dkimpy seals nothing where its own look at the chain fails"
    return b"".join(made) + octets


def chained(*by: Signer, octets: bytes = LETTER) -> bytes:
    for at, each in enumerate(by):
        octets = sealed(octets, each, cv="pass" if at else "none")
    return octets


async def outcome(octets: bytes, zone: Mapping[str, list[str]] = ZONE) -> arc.Outcome:
    message = parse(octets)
    fields = message.root.fields
    try:
        sets = arc.chain(octets, fields)
    except arc.BadChain as error:
        return arc.Outcome(Result.FAIL, str(error))
    names = {name for each in sets for name in (each.signature.key_name, each.sealed.key_name)}
    keys = {name: await dkim.fetch(Zone(zone), name) for name in names}
    return arc.verify(octets, fields, Bodies(octets, message.root.body_start), sets, keys)


def theirs(octets: bytes) -> str:
    def txt(name: bytes, timeout: int = 5) -> bytes:
        return ZONE.get(name.decode().rstrip("."), [""])[0].removeprefix("TXT ").encode()

    return bytes(dkimpy.arc_verify(octets, dnsfunc=txt)[0]).decode()


async def test_no_chain() -> None:
    assert await outcome(LETTER) == arc.Outcome(Result.NONE)


async def test_chains_pass() -> None:
    for by in ([LIST], [LIST, RELAY], [LIST, RELAY, COLLEGE]):
        octets = chained(*by)
        assert theirs(octets) == "pass"
        assert await outcome(octets) == arc.Outcome(
            Result.PASS, f"i={len(by)}", tuple(each.domain for each in reversed(by))
        )


async def test_a_hop_may_change_what_it_then_seals() -> None:
    octets = sealed(chained(LIST).replace(b"Hi.", b"Hi.\r\n-- \r\nfooter"), RELAY)
    assert (await outcome(octets)).result is Result.PASS
    assert theirs(octets) == "pass"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (rb"Hi\.", b"Ho."),
        (rb"Subject: hello", b"Subject: help"),
        (rb"dmarc=pass", b"dmarc=fail"),
        (rb"(?s)(ARC-Seal: i=1;.*? b=).", rb"\1 "),
        (rb"(?s)(ARC-Message-Signature: i=1;.*? bh=).", rb"\1A"),
        (rb"(?s)ARC-Authentication-Results: i=1;.*?\r\n(?![ \t])", b""),
        (rb"(?s)ARC-Seal: i=2;.*?\r\n(?![ \t])", b""),
        (rb"ARC-Seal: i=1;", b"ARC-Seal: i=2;"),
        (rb"ARC-Seal: i=2;", b"ARC-Seal: i=3;"),
        (rb"ARC-Seal: i=1;", b"ARC-Seal: "),
        (rb"ARC-Seal: i=2; cv=pass", b"ARC-Seal: i=2; cv=none"),
        (rb"ARC-Seal: i=2; cv=pass", b"ARC-Seal: i=2; cv=fail"),
        (rb"ARC-Seal: i=1; cv=none", b"ARC-Seal: i=1; cv=pass"),
        (rb"ARC-Seal: i=2;", b"ARC-Seal: i=2; h=from;"),
        (rb"ARC-Seal: i=2; cv=pass; a=rsa-sha256", b"ARC-Seal: i=2; cv=pass; a=rsa-sha1"),
        (rb"ARC-Seal: i=2;", b"ARC-Seal: i=2; i=2;"),
    ],
)  # fmt: skip
async def test_broken_chains_fail(old: bytes, new: bytes) -> None:
    octets = re.sub(old, new, chained(LIST, RELAY))
    assert octets != chained(LIST, RELAY)
    assert (await outcome(octets)).result is Result.FAIL


async def test_keys_that_cannot_be_had() -> None:
    octets = chained(LIST, RELAY)
    assert (await outcome(octets, RELAY.zone())).result is Result.FAIL
    dead = ZONE | {"rsa._domainkey.lists.example.org": [DEAD]}
    assert (await outcome(octets, dead)).result is Result.TEMPERROR


async def test_so_many_sets_and_no_more() -> None:
    octets = chained(LIST)
    head = octets[: -len(LETTER)]
    many = b"".join(head.replace(b"i=1;", f"i={i};".encode()) for i in range(1, 60))
    assert await outcome(many + LETTER) == arc.Outcome(Result.FAIL, "the sets are not complete")


def vouched(octets: bytes, trusted: set[str], author: str = "author.example") -> str:
    return arc.vouched(octets, arc.chain(octets, parse(octets).root.fields), trusted, author)


def test_who_vouches() -> None:
    octets = chained(LIST, RELAY)
    octets = sealed(octets, COLLEGE, "dmarc=fail header.from=author.example")
    everybody = {each.domain for each in (LIST, RELAY, COLLEGE)}
    assert vouched(octets, everybody) == RELAY.domain
    assert vouched(octets, {COLLEGE.domain}) == ""
    # Whoever comes after the trusted ones could have made up what they said.
    assert vouched(octets, everybody - {COLLEGE.domain}) == ""
    assert vouched(octets, everybody, "other.example") == ""


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ("dmarc=pass", True),
        ("dmarc = Pass (p=reject) header.from=AUTHOR.example", True),
        ('dmarc=pass header.from="author.example"', True),
        ("dmarc=pass header.from=evil.example", False),
        ("dmarc=passable", False),
        ("dmarc=none", False),
        ("spf=pass (; dmarc=pass )", False),
        ("spf=pass ((x) ; dmarc=pass )", False),
        ("spf=pass (\\) ; dmarc=pass )", False),
        ('spf=pass (" ) smtp.mailfrom="; dmarc=pass "@evil.example', False),
        ('spf=pass smtp.mailfrom="; dmarc=pass header.from=author.example"@evil.example', False),
        ('spf=pass smtp.mailfrom="\\"; dmarc=pass "@evil.example', False),
        ('spf=pass (" ) smtp.mailfrom="a b"@x.example; dmarc=pass (y) header.from=author.example', True),
        ("x=y dmarc=pass", False),
        ("dmarc=pass header.from=evil.example; dmarc=pass header.from=author.example", True),
    ],
)
def test_what_counts_as_seen(results: str, expected: bool) -> None:
    made = chained(LIST).replace(b"dmarc=pass header.from=author.example", results.encode())
    assert bool(vouched(made, {LIST.domain})) is expected
