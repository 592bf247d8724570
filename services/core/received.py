"""The trace field a door puts in front of a message (RFC 5321 4.4), and the fields of our own name it takes out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from ipaddress import IPv6Address, ip_address

from services.core.ids import SpoolId

_CONTROL = re.compile(r"[^!-~]+")


@dataclass(frozen=True, slots=True)
class Hop:
    """One hop, as the door saw it."""

    helo: str
    address: str  # the peer's IP address
    host: str  # our name
    spool_id: SpoolId
    at: datetime
    tls: str  # "TLSv1.3 TLS_AES_256_GCM_SHA384", empty when clear
    protocol: str  # RFC 3848: ESMTPSA, UTF8SMTPS ...
    recipient: str | None = None  # named only when there is one, so that nobody learns of blind copies
    rdns: str = ""  # the name that the address has and that points back to it


def received(hop: Hop) -> bytes:
    """The whole field with its CRLF. What the peer claims is reduced to visible ASCII, so it cannot add lines."""
    recipient = (
        hop.recipient if hop.recipient and (hop.recipient.isascii() or hop.protocol.startswith("UTF8")) else None
    )
    named = f"{_CONTROL.sub('?', hop.rdns)} " if hop.rdns else ""
    lines = [
        f"Received: from {_CONTROL.sub('?', hop.helo) or 'unknown'} ({named}{_literal(hop.address)})",
        f"by {hop.host} with {hop.protocol} id {hop.spool_id}",
        *([f"({hop.tls})"] if hop.tls else []),
        *([f"for <{recipient}>"] if recipient else []),
    ]
    return ("\r\n ".join(lines) + f";\r\n {format_datetime(hop.at)}\r\n").encode()


def _literal(address: str) -> str:
    try:
        # RFC 5321 4.1.3
        return f"[IPv6:{address}]" if isinstance(ip_address(address), IPv6Address) else f"[{address}]"
    except ValueError:
        return "[unknown]"


# White space, folds and comments may stand before the name, and quotes around it (RFC 8601 2.2).
_RESULTS = re.compile(
    rb'(?im)^authentication-results[ \t]*:(?:[ \t]|\r?\n[ \t]|\([^()\n]*\))*"?([^\s;"()]+)[^\n]*\n(?:[ \t][^\n]*\n)*'
)


def without_forged_results(octets: bytes, hostname: str) -> bytes:
    """The message without `Authentication-Results` that claim to be ours (RFC 8601 5); itself if there are none."""
    if octets.startswith(b"\r\n"):
        return octets  # no header at all
    end = octets.find(b"\r\n\r\n")
    header = octets[: end + 2] if end >= 0 else octets
    ours = hostname.lower().encode()
    kept = _RESULTS.sub(lambda m: b"" if m[1].lower() == ours else m[0], header)
    return octets if kept == header else kept + octets[len(header) :]
