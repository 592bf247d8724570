"""ARC sets as dkimpy sees them, through one, two and three forwarders."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import dkim
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.dkim.keys import RSA, SigningKey
from services.mxrouter.seal import seal
from services.mxrouter.sign import sign
from tests.unit.mxrouter.letters import BAD, GOOD, PLAIN, dns, key, pair

NOW = datetime(2026, 11, 25, 10, tzinfo=UTC)
HOPS = ("one.test", "two.test", "three.test")


def results(host: str, arc: str) -> bytes:
    """What a filter writes."""
    return (
        f"Authentication-Results: {host};\r\n spf=pass (ip4 matched) smtp.mailfrom=posta.test;\r\n"
        f" dkim=pass header.d=posta.test header.s=sel-rsa header.b=abcdefgh;\r\n dmarc=pass; arc={arc}\r\n"
    ).encode()


def hop(octets: bytes, domain: str, arc: str) -> bytes:
    """One forwarder: received, found, sealed."""
    host = f"mx.{domain}"
    taken = results(host, arc) + b"Received: from somewhere\r\n by %b\r\n" % host.encode() + octets
    return seal(taken, key(RSA, domain), host, NOW) + taken


def verdict(octets: bytes, *signers: SigningKey) -> tuple[bytes | None, list[int], str]:
    """dkimpy's word on the chain, the instances it saw, and its reason."""
    signers = signers or tuple(key(RSA, domain) for domain in HOPS)
    status, found, reason = dkim.ARC(octets).verify(dnsfunc=dns(*signers))
    return status, [each["instance"] for each in found], reason


@pytest.mark.parametrize("octets", GOOD.values(), ids=GOOD.keys())
@pytest.mark.parametrize("hops", [1, 2, 3])
def test_a_chain_verifies_at_every_length(octets: bytes, hops: int) -> None:
    if len(octets) > 1_000_000 and hops > 1:
        octets = octets[:1_000_000]
    octets = sign(octets, pair(), NOW) + octets + (b"" if octets.endswith(b"\r\n") else b"\r\n")
    for n, domain in enumerate(HOPS[:hops]):
        octets = hop(octets, domain, "pass" if n else "none")
    assert verdict(octets) == (dkim.CV_Pass, list(range(hops, 0, -1)), "success")
    # Forwarding has left the author's signature as it was.
    assert dkim.DKIM(octets).verify(dnsfunc=dns(*pair()))


def test_what_a_set_says() -> None:
    lines = seal(results("mx.one.test", "none") + PLAIN, key(RSA, "one.test"), "mx.one.test", NOW)
    names = re.findall(rb"(?m)^([A-Z-]+):", lines, re.I)
    assert names == [b"ARC-Seal", b"ARC-Message-Signature", b"ARC-Authentication-Results"]
    assert b"; cv=none;" in lines
    unfolded = lines.replace(b"\r\n ", b" ")
    assert (
        b"ARC-Authentication-Results: i=1; mx.one.test; spf=pass (ip4 matched) smtp.mailfrom=posta.test; "
        b"dkim=pass header.d=posta.test header.s=sel-rsa header.b=abcdefgh; dmarc=pass; arc=none\r\n" in unfolded
    )
    assert all(len(line) <= 78 for line in lines.split(b"\r\n"))


@pytest.mark.parametrize("at", [b"ARC-Seal: i=1", b"ARC-Message-Signature: i=1", b"ARC-Authentication-Results: i=1"])
def test_taking_from_a_chain_breaks_it(at: bytes) -> None:
    octets = hop(hop(PLAIN, "one.test", "none"), "two.test", "pass")
    broken = re.sub(re.escape(at) + rb"[^\n]*\n(?:[ \t][^\n]*\n)*", b"", octets, count=1)
    assert broken != octets
    assert verdict(broken)[0] == dkim.CV_Fail


def test_a_changed_body_breaks_the_newest_set() -> None:
    assert verdict(hop(PLAIN, "one.test", "none").replace(b".dot", b".dots"))[0] == dkim.CV_Fail


def test_a_broken_chain_is_said_to_be_broken_once_and_then_left_alone() -> None:
    once = hop(PLAIN, "one.test", "none").replace(b".dot", b".dots")
    twice = hop(once, "two.test", "fail")
    assert b"ARC-Seal: i=2; cv=fail;" in twice
    # RFC 8617 5.1.2: that set verifies as if it were the only one.
    alone = re.sub(rb"ARC-[A-Za-z-]+: i=1;[^\n]*\n(?:[ \t][^\n]*\n)*", b"", twice)
    _, found, _ = dkim.ARC(alone).verify(dnsfunc=dns(key(RSA, "two.test")))
    assert found[0]["ams-valid"]
    assert found[0]["as-valid"]
    assert hop(twice, "three.test", "fail").count(b"ARC-Seal:") == 2


@pytest.mark.parametrize("said", ["none", "", "temperror"])
def test_a_chain_that_nobody_looked_at_is_not_vouched_for(said: str) -> None:
    assert hop(hop(PLAIN, "one.test", "none"), "two.test", said).count(b"ARC-Seal:") == 1


def test_a_chain_with_a_hole_is_not_passed_on_as_good() -> None:
    octets = hop(hop(PLAIN, "one.test", "none"), "two.test", "pass")
    holed = re.sub(rb"ARC-Seal: i=1;[^\n]*\n(?:[ \t][^\n]*\n)*", b"", octets, count=1)
    assert b"ARC-Seal: i=3; cv=fail;" in hop(holed, "three.test", "pass")


def test_only_results_of_our_own_are_repeated() -> None:
    forged = results("mx.elsewhere.test", "pass") + PLAIN
    assert seal(forged, key(RSA, "one.test"), "mx.one.test", NOW) == b""
    both = results("MX.One.test", "none") + forged
    assert b"elsewhere" not in seal(both, key(RSA, "one.test"), "mx.one.test", NOW)


def test_what_strangers_say_in_our_results_is_not_believed() -> None:
    said = b'Authentication-Results: mx.two.test; spf=pass (they say; arc=pass) smtp.helo="x; arc=pass "\r\n'
    taken = said + hop(PLAIN, "one.test", "none")
    assert seal(taken, key(RSA, "two.test"), "mx.two.test", NOW) == b""


def test_several_fields_of_ours_become_one() -> None:
    octets = b"Authentication-Results: mx.one.test; spf=fail\r\n" + results("mx.one.test", "none") + PLAIN
    lines = seal(octets, key(RSA, "one.test"), "mx.one.test", NOW)
    assert b"i=1; mx.one.test; spf=fail; spf=pass" in lines.replace(b"\r\n ", b" ")
    assert verdict(lines + octets)[0] == dkim.CV_Pass


def test_a_chain_ends_at_fifty() -> None:
    fifty = b"".join(
        b"ARC-Seal: i=%d; cv=pass\r\nARC-Message-Signature: i=%d; a=b\r\nARC-Authentication-Results: i=%d; x\r\n"
        % (n, n, n)
        for n in range(50, 0, -1)
    )
    assert seal(results("mx.one.test", "pass") + fifty + PLAIN, key(RSA, "one.test"), "mx.one.test", NOW) == b""


@pytest.mark.parametrize("octets", BAD.values(), ids=BAD.keys())
def test_no_octets_are_too_bad(octets: bytes) -> None:
    assert seal(results("mx.one.test", "none") + octets, key(RSA, "one.test"), "mx.one.test", NOW)


@given(st.lists(st.sampled_from([b"ARC-Seal:", b"i=1;", b"i=", b"cv=", b"\r\n", b" ", b"\xff", b"99", b";", b"a: b"])))
def test_no_chain_is_too_bad(pieces: list[bytes]) -> None:
    octets = results("mx.one.test", "pass") + b"".join(pieces) + PLAIN
    lines = seal(octets, key(RSA, "one.test"), "mx.one.test", NOW)
    assert lines == b"" or re.fullmatch(rb"(?:[^\r\n]+\r\n)+", lines)
