"""The name that a client's address points to, and whether it points back (RFC 8601 3, "iprev")."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import NamedTuple, Protocol

from services.core.dns import Answer, DnsUnavailable, NoSuchName

_PATIENCE_S = 5.0
_NAMES = 5  # that an address may have; who has more gains nothing by them


class Names(Protocol):
    """What `services.core.dns.Dns` is to the door."""

    async def query(self, name: str, kind: str) -> Answer: ...


class Reverse(NamedTuple):
    """`result`: "pass"; "fail", no name points back; "permerror", there is none; "temperror"; empty: not asked."""

    name: str = ""
    result: str = ""


async def reverse(names: Names, host: str) -> Reverse:
    """What the DNS says of an address, within five seconds. Raises nothing but CancelledError."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            return await _reverse(names, host)
    except (DnsUnavailable, TimeoutError, ValueError):
        return Reverse(result="temperror")
    except NoSuchName:
        return Reverse(result="permerror")


async def _reverse(names: Names, host: str) -> Reverse:
    address = ip_address(host)
    pointers = (await names.query(address.reverse_pointer, "PTR")).records[:_NAMES]
    kind = "A" if address.version == 4 else "AAAA"
    unknown: DnsUnavailable | None = None
    for pointer in pointers:
        name = pointer.to_text().rstrip(".").lower()
        try:
            found = await names.query(name, kind)
        except NoSuchName:
            continue
        except DnsUnavailable as error:
            unknown = error
            continue
        if any(ip_address(record.to_text()) == address for record in found.records):
            return Reverse(name, "pass")
    if unknown is not None:
        raise unknown
    return Reverse(pointers[0].to_text().rstrip(".").lower(), "fail") if pointers else Reverse(result="permerror")
