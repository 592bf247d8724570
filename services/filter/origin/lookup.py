"""The few questions that the checks put to the DNS, and the names that may be asked for at all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

import dns.rdata
import dns.rdtypes.ANY.MX
import dns.rdtypes.ANY.PTR
import dns.rdtypes.ANY.TXT

from services.core.dns import Answer, NoSuchName

# Any octet may stand in a label (RFC 2181 11); a backslash would be read as the beginning of an escape.
_LABEL = re.compile(r"[ -\-/-\[\]-~]{1,63}")
_NAME_OCTETS = 253
# A record is policy or key; the longest key in use, RSA 4096, takes 736.
_TEXT_OCTETS = 8192


class Names(Protocol):
    """What `services.core.dns.Dns` is to us."""

    async def query(self, name: str, kind: str) -> Answer:
        """The records, none where the name has none of that type. Raises `NoSuchName`, `DnsUnavailable`."""
        ...


def is_name(name: str) -> bool:
    """Whether the DNS can be asked for it."""
    name = name.removesuffix(".")
    return 0 < len(name) <= _NAME_OCTETS and all(_LABEL.fullmatch(label) for label in name.split("."))


async def texts(names: Names, name: str) -> list[str]:
    """The TXT records, each in one piece (RFC 7208 3.3, RFC 6376 3.6.2.2); too long ones are left out.

    A name that does not exist has none. Raises `DnsUnavailable`.
    """
    pieces = [
        b"".join(record.strings)
        for record in await _answer(names, name, "TXT")
        if isinstance(record, dns.rdtypes.ANY.TXT.TXT)
    ]
    return [piece.decode("ascii", "replace") for piece in pieces if len(piece) <= _TEXT_OCTETS]


async def addresses(names: Names, name: str, kind: str) -> list[str]:
    """The addresses of type `kind`, A or AAAA. Raises `DnsUnavailable`."""
    return [record.to_text() for record in await _answer(names, name, kind)]


async def exchanges(names: Names, name: str) -> list[str]:
    """The hosts of the MX records, the preferred ones first. Raises `DnsUnavailable`."""
    records = [record for record in await _answer(names, name, "MX") if isinstance(record, dns.rdtypes.ANY.MX.MX)]
    return [str(record.exchange).rstrip(".") for record in sorted(records, key=lambda each: each.preference)]


async def pointers(names: Names, name: str) -> list[str]:
    """The names that a reverse name points to. Raises `DnsUnavailable`."""
    return [
        str(record.target).rstrip(".")
        for record in await _answer(names, name, "PTR")
        if isinstance(record, dns.rdtypes.ANY.PTR.PTR)
    ]


async def _answer(names: Names, name: str, kind: str) -> Sequence[dns.rdata.Rdata]:
    if not is_name(name):
        return ()
    try:
        return (await names.query(name, kind)).records
    except NoSuchName:
        return ()
