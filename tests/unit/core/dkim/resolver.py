"""A DNS server on 127.0.0.1 that shows the TXT records it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import dns.flags
import dns.message
import dns.rcode
import dns.rrset


class Zone(asyncio.DatagramProtocol):
    """`texts`: the records of each name, as a zone file writes their strings. `broken`: answer SERVFAIL to all."""

    def __init__(self) -> None:
        self.texts: dict[str, Sequence[str]] = {}
        self.broken = False
        self.port = 0

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        answer = dns.message.make_response(query, recursion_available=True)
        name = query.question[0].name
        records = self.texts.get(name.to_text(omit_final_dot=True))
        if self.broken:
            answer.set_rcode(dns.rcode.SERVFAIL)
        elif records is None:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif records:
            answer.answer.append(dns.rrset.from_text_list(name, 60, "IN", "TXT", records))
        self._transport.sendto(answer.to_wire(), addr)


@asynccontextmanager
async def serving() -> AsyncIterator[Zone]:
    """The server, for the block."""
    loop = asyncio.get_running_loop()
    transport, zone = await loop.create_datagram_endpoint(Zone, ("127.0.0.1", 0))
    try:
        yield zone
    finally:
        transport.close()
