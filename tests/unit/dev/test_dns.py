"""The test DNS, asked through the resolver that the services use."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.core.dns import Dns, DnsUnavailable, NoSuchName
from services.dev import probe
from services.dev.dns import BadZone, Zones, read, serve

ZONE = """\
;posta: signed
;posta: servfail broken
;posta: silent slow
$TTL 60
@ IN MX 10 mx
@ IN MX 20 mx2
mx IN A 127.0.0.1
mx IN AAAA ::1
_25._tcp.mx IN TLSA 3 1 1 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
www IN CNAME mx
away IN CNAME mx.remote.test.
*.wild IN A 127.0.0.3
deep.below IN A 127.0.0.4
"""
LONG = "".join(f'long IN TXT "{each * 250}" "{each * 250}"\n' for each in "abc")


class Place:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0

    def write(self, origin: str, text: str) -> None:
        path = self.folder / f"{origin}.zone"
        path.write_text(text)
        os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))

    def dns(self, timeout_s: float = 5.0) -> Dns:
        return Dns((f"127.0.0.1:{self.port}",), timeout_s)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path)
    place.port, server, transport = await serve(Zones(tmp_path))
    yield place
    server.close()
    transport.close()


async def texts(dns: Dns, name: str, kind: str) -> list[str]:
    return sorted(record.to_text() for record in (await dns.query(name, kind)).records)


async def test_the_demo_zones_are_there(place: Place) -> None:
    dns = place.dns()
    for domain in ("posta.test", "remote.test"):
        assert await texts(dns, domain, "MX") == [f"10 mx.{domain}."]
        assert await dns.addresses(f"mx.{domain}") == ("127.0.0.1",)
    assert await texts(dns, "1.0.0.127.in-addr.arpa", "PTR") == ["localhost."]
    assert not (await dns.query("posta.test", "MX")).authenticated


async def test_what_is_in_no_zone_does_not_exist(place: Place) -> None:
    dns = place.dns()
    for name in ("example.org", "nobody.posta.test", "test"):
        with pytest.raises(NoSuchName):
            await dns.query(name, "MX")
    assert (await dns.query("mx.posta.test", "TXT")).records == ()


async def test_a_signed_zone(place: Place) -> None:
    place.write("a.test", ZONE)
    dns = place.dns()

    assert await texts(dns, "a.test", "MX") == ["10 mx.a.test.", "20 mx2.a.test."]
    assert sorted(await dns.addresses("mx.a.test")) == ["127.0.0.1", "::1"]
    for name, kind in (("a.test", "MX"), ("mx.a.test", "A"), ("_25._tcp.mx.a.test", "TLSA"), ("www.a.test", "A")):
        assert (await dns.query(name, kind)).authenticated, name
    assert await texts(dns, "www.a.test", "A") == ["127.0.0.1"]
    assert await texts(dns, "x.wild.a.test", "A") == ["127.0.0.3"]
    assert (await dns.query("below.a.test", "A")).records == (), "something stands below it"

    # An alias that leads out of it is proved up to there and no further.
    beyond = await dns.query("away.a.test", "A")
    assert ([record.to_text() for record in beyond.records], beyond.authenticated) == (["127.0.0.1"], False)


async def test_an_answer_too_long_for_udp_comes_by_tcp(place: Place) -> None:
    place.write("a.test", ZONE + LONG)

    assert len(await texts(place.dns(), "long.a.test", "TXT")) == 3


async def test_names_that_are_broken_on_purpose(place: Place) -> None:
    place.write("a.test", ZONE)

    with pytest.raises(DnsUnavailable, match=r"broken\.a\.test"):
        await place.dns().query("broken.a.test", "A")
    with pytest.raises(DnsUnavailable, match=r"slow\.a\.test"):
        await place.dns(0.3).query("slow.a.test", "A")


async def test_a_file_takes_the_place_of_a_demo_zone_and_is_read_again(place: Place, capsys: Any) -> None:
    place.write("remote.test", "@ 0 IN MX 5 elsewhere\n")
    assert await texts(place.dns(), "remote.test", "MX") == ["5 elsewhere.remote.test."]

    place.write("remote.test", "@ 0 IN MX 7 elsewhere\n")
    assert await texts(place.dns(), "remote.test", "MX") == ["7 elsewhere.remote.test."]

    place.write("remote.test", "@ 0 IN NONSENSE\n")
    assert await texts(place.dns(), "remote.test", "MX") == ["10 mx.remote.test."], "as if it were not there"
    assert "remote.test.zone: zone remote.test: " in capsys.readouterr().err


@pytest.mark.parametrize("text", ["@ IN A 1.2.3\n", ";posta: bogus x\n", "x IN\n", ";posta: silent a..b\n"])
def test_a_zone_that_cannot_be_read(text: str) -> None:
    with pytest.raises(BadZone, match=r"zone a\.test: "):
        read("a.test", text)


async def test_garbage_is_not_answered(place: Place) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for octets in (b"", b"x", bytes(12), b"\xff" * 600):
            sender.sendto(octets, ("127.0.0.1", place.port))
    assert await probe.dns(place.port) == ""


async def test_the_probe_says_what_is_wrong(place: Place) -> None:
    with socket.socket() as idle:
        idle.bind(("127.0.0.1", 0))
        assert await probe.dns(idle.getsockname()[1]) == "not listening"
