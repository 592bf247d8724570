"""DKIM signatures as verifiers that nobody here wrote see them."""

from __future__ import annotations

import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import dkim
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.dkim import zone
from services.core.dkim.keys import ED25519
from services.mxrouter.sign import sign
from tests.unit.mxrouter.letters import BAD, GOOD, PLAIN, dns, key, pair, public

# Its test mode reads files with bare line feeds, lines of a few kB and headers of 64 kB.
BEYOND_OPENDKIM = {"bare line feeds", "one long line", "much white space", "huge header"}
NOW = datetime(2026, 11, 25, 10, tzinfo=UTC)


def verified(octets: bytes) -> list[bool]:
    """dkimpy's word on each signature, from the top; the octets as SMTP carries them, with a line end at their end."""
    octets += b"" if octets.endswith(b"\r\n") else b"\r\n"
    count = len(re.findall(rb"(?m)^DKIM-Signature:", octets))
    return [dkim.DKIM(octets).verify(idx=n, dnsfunc=dns(*pair())) for n in range(count)]


@pytest.mark.parametrize("octets", GOOD.values(), ids=GOOD.keys())
def test_both_signatures_verify(octets: bytes) -> None:
    assert verified(sign(octets, pair(), NOW) + octets) == [True, True]


@pytest.mark.parametrize("octets", BAD.values(), ids=BAD.keys())
def test_no_octets_are_too_bad_to_be_signed(octets: bytes) -> None:
    lines = sign(octets, pair(), NOW)
    assert lines.count(b"DKIM-Signature:") == 2
    assert lines.endswith(b"\r\n")


@given(st.lists(st.sampled_from([b"\r\n", b"\n", b" ", b"\t", b"a", b"\xe4", b"From:", b":", b"\r", b"."])))
def test_any_octets_can_be_signed(pieces: list[bytes]) -> None:
    lines = sign(b"".join(pieces), (key(ED25519),), NOW)
    assert re.fullmatch(rb"(?:[^\r\n]+\r\n)+", lines)


@given(st.lists(st.sampled_from([b"\r\n", b"\n", b" ", b"\t", b"a", b"\xe4", b".", b"  \r\n"])))
def test_any_body_verifies(pieces: list[bytes]) -> None:
    octets = b"From: a@posta.test\r\nSubject: x\r\n\r\n" + b"".join(pieces)
    assert verified(sign(octets, (key(ED25519),), NOW) + octets) == [True]


def test_what_a_signature_says() -> None:
    rsa, ed25519 = sign(PLAIN, pair(), NOW).split(b"DKIM-Signature: ")[1:]
    tags = dict(part.strip().split("=", 1) for part in re.sub(rb"\s+", b"", rsa).decode().split(";"))
    assert (tags["v"], tags["a"], tags["c"]) == ("1", "rsa-sha256", "relaxed/relaxed")
    assert (tags["d"], tags["s"], tags["t"]) == ("posta.test", "sel-rsa", "1795600800")
    assert "l" not in tags
    names = tags["h"].split(":")
    counts = {name: names.count(name) for name in names}
    assert counts["from"] == counts["subject"] == counts["to"] == counts["message-id"] == 2
    assert counts["reply-to"] == counts["cc"] == 1  # not there, and nobody may add one
    assert not {"received", "return-path", "bcc", "dkim-signature", "list-id"} & counts.keys()
    assert b"a=ed25519-sha256;" in ed25519
    assert all(len(line) <= 78 for line in sign(PLAIN, pair(), NOW).split(b"\r\n"))


@pytest.mark.parametrize(
    "change",
    [
        (b"Subject: a", b"Subject: b"),
        (b"From:", b"From: Mallory <m@elsewhere.test>\r\nFrom:"),
        (b"To:", b"Reply-To: m@elsewhere.test\r\nTo:"),
        (b"aus", b"AUS"),
        (b".dot", b".dot\r\nmore"),
    ],
)
def test_a_change_breaks_both(change: tuple[bytes, bytes]) -> None:
    signed = sign(PLAIN, pair(), NOW)
    for top in signed.split(b"DKIM-Signature: ")[1:]:
        octets = b"DKIM-Signature: " + top + PLAIN.replace(*change)
        assert not dkim.verify(octets, dnsfunc=dns(*pair()))


def test_hops_may_add_trace_fields_and_change_white_space() -> None:
    octets = sign(PLAIN, pair(), NOW) + PLAIN
    moved = b"Received: from posta\r\n" + octets.replace(b"a  folded\r\n\t subject ", b"a folded subject")
    assert verified(moved.replace(b"aus\tK", b"aus   K").removesuffix(b"\r\n") + b"\r\n\r\n") == [True, True]


def test_a_space_before_the_colon_is_not_signed() -> None:
    spaced = PLAIN.replace(b"Subject:", b"Subject \t:")
    lines = sign(spaced, pair(), NOW)
    assert verified(lines + PLAIN) == [True, True]


def test_white_space_without_end_takes_no_time_of_its_square() -> None:
    octets = PLAIN + b" \t" * 2_000_000 + b"x\r\n" + b"\r\n" * 500_000 + b"\r"
    assert sign(octets, (key(ED25519),), NOW)


def test_without_keys_nothing_is_added() -> None:
    assert sign(PLAIN, (), NOW) == b""


@pytest.mark.parametrize("name", sorted(GOOD.keys() - BEYOND_OPENDKIM))
def test_opendkim_agrees(name: str, tmp_path: Path) -> None:
    opendkim = shutil.which("opendkim", path="/usr/sbin:/usr/bin")
    if opendkim is None:
        pytest.skip("needs opendkim")
    octets = GOOD[name]
    (tmp_path / "keys").write_text(
        "".join(
            f"{zone.name(each.domain, each.selector)} {zone.value(each.algorithm, public(each))}\n" for each in pair()
        )
    )
    (tmp_path / "conf").write_text(f"Mode v\nTestPublicKeys {tmp_path / 'keys'}\nSyslog no\nBackground no\n")
    (tmp_path / "letter").write_bytes((sign(octets, pair(), NOW) + octets).replace(b"\r\n", b"\n") + b"\n")
    done = subprocess.run(
        [opendkim, "-x", tmp_path / "conf", "-vv", "-t", tmp_path / "letter"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.count("dkim=pass") == 2, done.stdout + done.stderr
