"""A name server for test zones, so that mail on this machine finds its way by real lookups. Not for production.

Zones are master files (RFC 1035 5): those of the demo are below, `<origin>.zone` in POSTA_HOME/zones adds one or takes
the place of one, and is read again when it changes. What is in no zone does not exist: nothing leaves this machine.
Comments of a zone file that begin with `posta:` say how it is answered, one word and the names it is about:

    ;posta: signed                     the zone is answered as authentic (AD), as if DNSSEC had proved it
    ;posta: servfail broken.a.test     these names are answered with SERVFAIL
    ;posta: silent slow.a.test         questions for these names are never answered
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.node
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.zone

from services.dev.home import find

HOST: Final = "127.0.0.1"
_TTL: Final = "$TTL 5\n"
_MAIL: Final = f"""{_TTL}
@ IN MX 10 mx
@ IN TXT "v=spf1 ip4:127.0.0.0/8 ip6:::1 -all"
_dmarc IN TXT "v=DMARC1; p=none"
mx IN A 127.0.0.1
"""
DEMO: Final = {
    "posta.test": _MAIL,
    "remote.test": _MAIL,
    "127.in-addr.arpa": f"{_TTL}\n1.0.0 IN PTR localhost.\n",
    "localhost": f"{_TTL}\n@ IN A 127.0.0.1\n",
}
_DIRECTIVE = re.compile(r"(?m)^;posta:[ \t]*(\w+)(.*)$")
_LONGEST_CHASE: Final = 8


class BadZone(ValueError):
    """A zone file cannot be read; the text names it."""


@dataclass(frozen=True, slots=True)
class Zone:
    """One zone, and how it is answered."""

    records: dns.zone.Zone
    signed: bool = False
    servfail: frozenset[dns.name.Name] = frozenset()
    silent: frozenset[dns.name.Name] = frozenset()


def read(origin: str, text: str) -> Zone:
    """The zone that a master file is. Raises BadZone."""
    told: dict[str, list[dns.name.Name]] = {}
    try:
        name = dns.name.from_text(origin)
        for word, names in _DIRECTIVE.findall(text):
            told.setdefault(word, []).extend(dns.name.from_text(each, name) for each in names.split())
        records = dns.zone.from_text(text, name, relativize=False, check_origin=False)
    except (dns.exception.DNSException, ValueError, KeyError) as error:
        raise BadZone(f"zone {origin}: {error}") from error
    if unknown := told.keys() - {"signed", "servfail", "silent"}:
        raise BadZone(f"zone {origin}: nothing is known of {', '.join(sorted(unknown))}")
    silent, servfail = frozenset(told.get("silent", ())), frozenset(told.get("servfail", ()))
    return Zone(records, "signed" in told, servfail, silent)


class Zones:
    """The zones of the demo and of a folder, as they are now."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._demo = {dns.name.from_text(origin): read(origin, text) for origin, text in DEMO.items()}
        self._read: dict[Path, tuple[float, Zone | None]] = {}

    def of(self, name: dns.name.Name) -> Zone | None:
        """The zone that a name is in: the one with the longest origin."""
        zones = self._demo | self._files()
        while True:
            if name in zones:
                return zones[name]
            if name == dns.name.root or not name.labels:
                return None
            name = name.parent()

    def _files(self) -> dict[dns.name.Name, Zone]:
        found = {}
        for path in sorted(self._folder.glob("*.zone")):
            changed_at = path.stat().st_mtime_ns
            if self._read.get(path, (0, None))[0] != changed_at:
                try:
                    zone: Zone | None = read(path.stem, path.read_text())
                except (BadZone, OSError) as error:
                    print(f"posta: {path}: {error}", file=sys.stderr, flush=True)
                    zone = None
                self._read[path] = (changed_at, zone)
            if (known := self._read[path][1]) is not None:
                found[dns.name.from_text(path.stem)] = known
        return found


def answer(zones: Zones, wire: bytes) -> dns.message.Message | None:
    """The answer to a question, None where it is to remain without one."""
    try:
        query = dns.message.from_wire(wire)
        response = dns.message.make_response(query, recursion_available=True)
    except dns.exception.DNSException:
        return None
    if len(query.question) != 1:
        response.set_rcode(dns.rcode.FORMERR)
        return response
    name, kind = query.question[0].name, query.question[0].rdtype
    authentic = True
    for _ in range(_LONGEST_CHASE):
        zone = zones.of(name)
        if zone is not None and name in zone.silent:
            return None
        if zone is not None and name in zone.servfail:
            response.answer.clear()
            response.set_rcode(dns.rcode.SERVFAIL)
            return response
        authentic = authentic and zone is not None and zone.signed
        node = None if zone is None else zone.records.get_node(name) or zone.records.get_node(_wildcard(name))
        if node is None:
            if zone is None or not _has_descendants(zone, name):
                response.set_rcode(dns.rcode.NXDOMAIN)
            break
        if (alias := _add(response, name, node, kind)) is None:
            break
        name = alias
    if authentic:
        response.flags |= dns.flags.AD
    return response


def _add(
    response: dns.message.Message, name: dns.name.Name, node: dns.node.Node, kind: dns.rdatatype.RdataType
) -> dns.name.Name | None:
    """Put a node's records into the answer; the name to go on with where they are an alias."""
    for each in (kind, dns.rdatatype.CNAME):
        rdataset = node.get_rdataset(dns.rdataclass.IN, each)
        if rdataset is not None:
            rrset = dns.rrset.from_rdata_list(name, rdataset.ttl, list(rdataset))
            response.answer.append(rrset)
            return rrset[0].target if each != kind else None
    return None


def _wildcard(name: dns.name.Name) -> dns.name.Name:
    return dns.name.Name((b"*", *name.labels[1:])) if len(name.labels) > 1 else name


def _has_descendants(zone: Zone, name: dns.name.Name) -> bool:
    # RFC 8020: a name that something stands below exists, if without records.
    return any(each.is_subdomain(name) for each in zone.records.nodes)


class Udp(asyncio.DatagramProtocol):
    def __init__(self, zones: Zones) -> None:
        self._zones = zones
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
        response = answer(self._zones, data)
        if response is None or self._transport is None:
            return
        try:
            wire = response.to_wire(max_size=max(512, response.request_payload))
        except dns.exception.TooBig:
            response.answer.clear()
            response.flags |= dns.flags.TC
            wire = response.to_wire()
        self._transport.sendto(wire, addr)


async def serve(zones: Zones, port: int = 0) -> tuple[int, asyncio.Server, asyncio.DatagramTransport]:
    """Answer by UDP and TCP on the same port; which one it is, and what to close."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(2))
                response = answer(zones, await reader.readexactly(size))
                if response is not None:
                    wire = response.to_wire(max_size=65535)
                    writer.write(len(wire).to_bytes(2) + wire)
                    await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(talk, HOST, port)
    port = server.sockets[0].getsockname()[1]
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: Udp(zones), (HOST, port))
    return port, server, transport


async def main(port: int) -> None:
    await serve(Zones(find(os.environ).zones), port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
