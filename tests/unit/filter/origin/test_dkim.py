"""DKIM: the messages of the RFCs, and what another's signer makes and another's verifier thinks of it."""

import base64
import random
from collections.abc import Callable, Mapping

import dkim as dkimpy
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.dkim.canonical import Bodies
from services.core.mime.structure import parse
from services.filter.origin import dkim
from services.filter.origin.results import Result
from tests.unit.filter.origin.zone import DEAD, Signer, Zone

NOW = 1_700_000_000.0

# RFC 8463 appendix A.
FOOTBALL = b"""DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.
""".replace(b"\n", b"\r\n")
FOOTBALL_KEYS = {
    "brisbane._domainkey.football.example.com": [
        "TXT v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
    ],
    "test._domainkey.football.example.com": [
        "TXT v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQi"
        "Y/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT"
        "+l/K4w3QIDAQAB"
    ],
}

EXAMPLE = Signer("example.org")
KEY = base64.b64encode(EXAMPLE.rsa_public).decode()
ED = base64.b64encode(EXAMPLE.ed_public).decode()
LETTER = (
    b"From: Ann <ann@example.org>\r\nTo:  Bob\t<bob@posta.test> \r\nSubject: a  long\r\n\tsubject\r\n"
    b"X-Note: one\r\nX-Note: two\r\n\r\nDear  Bob,\t \r\n\r\n.dot\r\n yours\r\n\r\n\r\n"
)


async def verified(octets: bytes, zone: Mapping[str, list[str]], now: float = NOW) -> list[dkim.Outcome]:
    message = parse(octets)
    fields, bodies, names = message.root.fields, Bodies(octets, message.root.body_start), Zone(zone)
    outcomes = []
    for one in dkim.signatures(octets, fields):
        found = await dkim.fetch(names, one.signature.key_name) if one.signature else dkim.Outcome(Result.NEUTRAL, "")
        outcomes.append(dkim.verify(octets, fields, bodies, one, found, now))
    return outcomes


async def verdict(octets: bytes, zone: Mapping[str, list[str]] | None = None, now: float = NOW) -> tuple[str, str]:
    (outcome,) = await verified(octets, EXAMPLE.zone() if zone is None else zone, now)
    return str(outcome.result), outcome.reason


def signed(
    octets: bytes = LETTER, *, form: str = "relaxed/relaxed", names: str = "from to subject", **more: object
) -> bytes:
    header, _, body = form.partition("/")
    made = dkimpy.sign(
        octets, b"rsa", b"example.org", EXAMPLE.rsa, canonicalize=(header.encode(), body.encode()),
        include_headers=[each.encode() for each in names.split()], **more,
    )  # fmt: skip
    return bytes(made) + octets


def theirs(octets: bytes, zone: Mapping[str, list[str]]) -> bool:
    def txt(name: bytes, timeout: int = 5) -> bytes:
        return zone.get(name.decode().rstrip("."), [""])[0].removeprefix("TXT ").encode()

    try:
        return bool(dkimpy.verify(octets, dnsfunc=txt))
    except dkimpy.DKIMException:
        return False


async def test_the_message_of_rfc_8463() -> None:
    assert [outcome.result for outcome in await verified(FOOTBALL, FOOTBALL_KEYS)] == [Result.PASS, Result.PASS]
    changed = FOOTBALL.replace(b"hungry", b"thirsty")
    outcomes = await verified(changed, FOOTBALL_KEYS)
    assert [(o.result, o.reason) for o in outcomes] == [(Result.FAIL, "body has been altered")] * 2
    assert [o.result for o in await verified(FOOTBALL.replace(b"Suzie Q", b"Suzi Q"), FOOTBALL_KEYS)] == [
        Result.FAIL
    ] * 2


@pytest.mark.parametrize("form", ["relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple"])
@pytest.mark.parametrize(
    "change",
    [
        lambda octets: octets,
        lambda octets: octets.replace(b"a  long", b"a long"),
        lambda octets: octets.replace(b"Subject:", b"SUBJECT:"),
        lambda octets: octets.replace(b"a  long\r\n\tsubject", b"a long subject"),
        lambda octets: octets.replace(b"Dear  Bob,\t ", b"Dear Bob,"),
        lambda octets: octets + b"\r\n\r\n",
        lambda octets: octets.rstrip(b"\r\n"),
        lambda octets: octets.replace(b"\r\n yours", b"\n yours"),
        lambda octets: octets.replace(b"long\r\n\tsubject", b"long\n\tsubject"),
        lambda octets: octets.replace(b"yours", b"theirs"),
        lambda octets: octets.replace(b"Ann", b"Eve"),
        lambda octets: b"X-Note: three\r\n" + octets,
        lambda octets: octets.replace(b"\r\n\r\nDear", b"\r\nSubject: another\r\n\r\nDear"),
        lambda octets: octets.replace(b"\r\n\r\nDear", b"\r\nX-Note: zero\r\n\r\nDear"),
    ],
)  # fmt: skip
async def test_another_verifier_agrees(form: str, change: Callable[[bytes], bytes]) -> None:
    octets = change(signed(form=form, names="from to subject x-note x-note x-note"))
    assert ((await verdict(octets))[0] == "pass") is theirs(octets, EXAMPLE.zone())


async def test_what_was_signed_passes() -> None:
    for form in ("relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple"):
        assert await verdict(signed(form=form)) == ("pass", "")
    made = dkimpy.sign(LETTER, b"ed", b"example.org", EXAMPLE.ed, signature_algorithm=b"ed25519-sha256")
    assert await verdict(bytes(made) + LETTER) == ("pass", "")


LINES = st.lists(st.text("ab \t.:;=", max_size=12), max_size=6).map(lambda lines: "\r\n".join(lines).encode())


@settings(max_examples=60, deadline=None)
@given(body=LINES, subject=st.text("ab  \t", max_size=20), form=st.sampled_from(["relaxed", "simple"]))
async def test_any_message_that_another_signs_passes(body: bytes, subject: str, form: str) -> None:
    octets = b"From: ann@example.org\r\nSubject: x" + subject.encode() + b"\r\n\r\n" + body + b"\r\n"
    assert await verdict(signed(octets, form=f"{form}/{form}", names="from subject")) == ("pass", "")


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
async def test_no_octet_of_a_signature_can_be_changed_to_fool_us_alone(seed: int) -> None:
    chosen, octets = random.Random(seed), bytearray(SIGNED)
    octets[chosen.randrange(len(SIGNED) - len(LETTER))] = chosen.choice(b" \t;=:azAZ09+/")
    outcomes = await verified(bytes(octets), EXAMPLE.zone())
    if any(outcome.result is Result.PASS for outcome in outcomes):
        assert theirs(bytes(octets), EXAMPLE.zone())


SIGNED = signed()


def of_key(text: str) -> dict[str, list[str]]:
    return {"rsa._domainkey.example.org": [f"TXT {text}"]}


@pytest.mark.parametrize(
    ("zone", "expected"),
    [
        ({}, "permerror: no key at rsa._domainkey.example.org"),
        ({"rsa._domainkey.example.org": [DEAD]}, "temperror: TXT of rsa._domainkey.example.org: nobody answers"),
        (of_key(f"p={KEY}"), "pass"),
        (of_key(f"v=DKIM1;p={KEY};"), "pass"),
        (of_key(f"v=DKIM1; t=y; p={KEY}"), "pass"),
        (of_key(f"v=DKIM1; h=sha1:sha256; s=*; n=a note; p={KEY[:50]} {KEY[50:]}"), "pass"),
        (of_key("p=" + base64.b64encode(EXAMPLE.rsa_public_bare).decode()), "pass"),
        (of_key("v=DKIM1; p="), "permerror: the key is revoked"),
        (of_key("v=DKIM1"), "permerror: the record has no key"),
        (of_key(f"p={KEY}; v=DKIM1"), "permerror: the key is of another version"),
        (of_key(f"v=DKIM2; p={KEY}"), "permerror: the key is of another version"),
        (of_key(f"h=sha1; p={KEY}"), "permerror: the key is not for SHA-256"),
        (of_key(f"s=tlsrpt; p={KEY}"), "permerror: the key is not for mail"),
        (of_key(f"p={KEY}; p={KEY}"), "permerror: the key's record is p= comes twice"),
        (of_key("p=AAAA"), "permerror: the key cannot be read"),
        (of_key("p=A*A"), "permerror: the key cannot be read"),
        (of_key(f"k=dsa; p={KEY}"), "permerror: the key is of an unknown kind"),
        (of_key(f"k=ed25519; p={KEY}"), "permerror: the key cannot be read"),
        (of_key(f"k=ed25519; p={ED}"), "permerror: the key is of another algorithm"),
        (of_key("v=spf1 -all"), "permerror: the key is of another version"),
        ({"rsa._domainkey.example.org": ["TXT hello", f"TXT p={KEY}"]}, "pass"),
        (of_key("p=" + "A" * 9000), "permerror: no key at rsa._domainkey.example.org"),
    ],
)  # fmt: skip
async def test_keys(zone: dict[str, list[str]], expected: str) -> None:
    result, reason = await verdict(SIGNED, zone)
    assert f"{result}: {reason}".removesuffix(": ") == expected


async def test_a_short_key_proves_nothing() -> None:
    # cryptography makes no key so short any more, and has no need to: the size alone decides.
    modulus = (1 << 767) | 1
    numbers = RSAPublicNumbers(65537, modulus).public_key()
    public = numbers.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    zone = of_key("p=" + base64.b64encode(public).decode())
    assert await verdict(SIGNED, zone) == ("permerror", "the key has 768 bits")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (b"v=1;", b"", "permerror: not version 1"),
        (b"v=1;", b"v=2;", "permerror: not version 1"),
        (b"a=rsa-sha256", b"a=rsa-sha1", "permerror: algorithm rsa-sha1 is not supported"),
        (b"d=example.org;", b"d=;", "permerror: d= is missing"),
        (b"d=example.org;", b"d=example.org; d=example.org;", "permerror: d= comes twice"),
        (b"d=example.org;", b"d=ex ample.org;", "permerror: d= is not a domain"),
        (b"i=@example.org;", b"i=@example.net;", "permerror: i= is not of the domain d="),
        (b"i=@example.org;", b"i=@notexample.org;", "permerror: i= is not of the domain d="),
        (b"q=dns/txt;", b"q=http;", "permerror: the key is not in the DNS"),
        (b"d=example.org;", b"d=example.org; l=x;", "permerror: l= is not a number"),
        (b"d=example.org;", b"d=example.org; l=999999;", "fail: body is shorter than signed"),
        (b"d=example.org;", b"d=example.org; t=5; x=4;", "permerror: it expires before it was made"),
        (b"d=example.org;", b"d=example.org; x=1600000000;", "fail: signature has expired"),
        (b"d=example.org;", b"d=example.org; c2;", "permerror: not a list of tags"),
        (b"c=relaxed/relaxed", b"c=relaxed/nofws", "permerror: unknown canonical form"),
        (b"h=from : to", b"h=to", "permerror: From is not signed"),
        (b"bh=", b"bh=*", "permerror: bh= is not base64"),
        (b" b=", b" b=AAAA", "fail: signature does not match"),
    ],
)
async def test_signatures(old: bytes, new: bytes, expected: str) -> None:
    octets = SIGNED.replace(b" t=", b" y=", 1)  # or no expiry would lie behind the signing
    assert old in octets
    result, reason = await verdict(octets.replace(old, new, 1))
    assert f"{result}: {reason}" == expected


async def test_a_signature_over_a_part_proves_nothing_about_the_rest() -> None:
    octets = signed(length=True)
    assert await verdict(octets) == ("pass", "")
    assert await verdict(octets + b"And a lie.\r\n") == ("policy", "only a part of the body is signed")


async def test_a_strict_key_is_for_its_own_domain() -> None:
    octets = bytes(dkimpy.sign(LETTER, b"rsa", b"example.org", EXAMPLE.rsa, identity=b"ann@sub.example.org")) + LETTER
    assert await verdict(octets, of_key(f"p={KEY}")) == ("pass", "")
    assert (await verdict(octets, of_key(f"t=s; p={KEY}")))[0] == "permerror"


async def test_failures_of_a_key_in_testing_do_not_count() -> None:
    assert (await verdict(SIGNED.replace(b"yours", b"theirs"), of_key(f"t=y; p={KEY}")))[0] == "neutral"


async def test_so_many_signatures_and_no_more() -> None:
    octets = SIGNED[: -len(LETTER)] * 40 + LETTER
    assert len(await verified(octets, EXAMPLE.zone())) == dkim.MAX_SIGNATURES
