"""Zip files as their makers meant them, and as others did."""

import random
import struct
import zipfile

import pytest

from services.filter.archive import MAX_DEPTH, Abandoned, Bounds, is_archive, walk
from tests.unit.filter.letters import EICAR, local_only, zipped


def contents(data: bytes, bounds: Bounds | None = None) -> dict[str, bytes]:
    return {m.name: m.content for m in walk(data, bounds or Bounds()) if m.content is not None}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_and_their_members(method: int) -> None:
    inner = zipped(("deep.txt", b"deep" * 50), method=method)
    data = zipped(("a.txt", b"first" * 9), ("inner.zip", inner), ("ü.txt", b"last"), method=method)
    held = contents(data)
    assert held["a.txt"] == b"first" * 9
    assert held["ü.txt"] == b"last"
    assert held["inner.zip/deep.txt"] == b"deep" * 50


def test_a_member_that_only_the_local_header_tells_of() -> None:
    data = local_only("hidden.txt", EICAR) + zipped(("shown.txt", b"nothing"))
    assert contents(data) == {"hidden.txt": EICAR, "shown.txt": b"nothing"}


def test_a_name_that_only_the_central_directory_tells() -> None:
    data = zipped(("harmless.txt", b"x" * 100))
    at = data.index(b"PK\x01\x02")
    forged = data[:at] + data[at:].replace(b"harmless.txt", b"harmful1.exe")
    assert {m.name for m in walk(forged, Bounds())} == {"harmful1.exe", "harmless.txt"}


def test_an_archive_behind_a_program_and_before_a_comment() -> None:
    data = b"MZ" + bytes(50_000) + zipped(("a.txt", b"a" * 40))
    data = data[:-2] + struct.pack("<H", 1000) + bytes(1000)
    assert is_archive(data, 0, len(data))
    assert contents(data) == {"a.txt": b"a" * 40}


def test_a_bomb_ends_at_the_bound() -> None:
    bounds = Bounds(octets=5_000_000)
    data = zipped(*[(f"{n}", bytes(4_000_000)) for n in range(20)])
    assert len(data) < 100_000
    assert sum(map(len, contents(data, bounds).values())) < 7_000_000
    assert "MiB unpacked" in bounds.exceeded


def test_stored_members_that_claim_each_other_s_octets_are_counted() -> None:
    header = struct.pack("<4sHHHIIIIHH", b"PK\x03\x04", 20, 0, 0, 0, 0, 10**6, 10**6, 1, 0) + b"a"
    bounds = Bounds(octets=5_000_000)
    contents(header * 50 + bytes(10**6), bounds)
    assert bounds.exceeded


def test_nesting_ends_at_the_bound() -> None:
    data = b"core"
    for depth in range(MAX_DEPTH + 2):
        data = zipped((f"{depth}.zip", data))
    bounds = Bounds()
    list(walk(data, bounds))
    assert "nested" in bounds.exceeded


def test_members_end_at_the_bound() -> None:
    bounds = Bounds(members=10)
    assert len(list(walk(zipped(*[(f"{n}", b"x") for n in range(30)]), bounds))) == 10
    assert "members" in bounds.exceeded


def test_encrypted_and_unknown_methods_are_noted() -> None:
    data = zipped(("secret.txt", b"x" * 50))
    encrypted = data[:6] + b"\x01" + data[7:]
    unknown = data[:8] + b"\x63" + data[9:]
    assert {m.note for m in walk(encrypted, Bounds())} == {"", "encrypted"}
    assert {m.note for m in walk(unknown, Bounds())} == {"", "method"}
    assert all(m.content is None for m in walk(encrypted, Bounds()))


def test_nobody_waits_any_more() -> None:
    with pytest.raises(Abandoned):
        list(walk(zipped(("a", b"a")), Bounds(abandoned=lambda: True)))


def test_damage_never_raises() -> None:
    chance = random.Random(7)
    whole = zipped(("a.txt", b"some text " * 40), ("b.zip", zipped(("c", b"c" * 300))))
    for _ in range(2000):
        data = bytearray(whole[: chance.randrange(1, len(whole) + 1)])
        for _ in range(chance.randrange(4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        list(walk(bytes(data), Bounds(octets=10**6)))
