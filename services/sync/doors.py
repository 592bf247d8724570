"""Where the doors are, as clients are told, and the documents that tell them: pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from xml.etree.ElementTree import Element, SubElement, tostring

from services.core.settings import Sync


@dataclass(frozen=True, slots=True)
class Door:
    """One way in. `kind`: imap, pop3 or smtp; `implicit`: TLS from the first octet, else STARTTLS."""

    kind: str
    host: str
    port: int
    implicit: bool


def doors(settings: Sync, hostname: str) -> tuple[Door, ...]:
    """Best first: implicit TLS before STARTTLS (RFC 8314 3), IMAP before POP. Ports of 0 are left out."""
    host = settings.public_hostname or hostname
    all_of_them = (
        Door("imap", host, settings.imap_tls_port, True),
        Door("imap", host, settings.imap_port, False),
        Door("pop3", host, settings.pop_tls_port, True),
        Door("pop3", host, settings.pop_port, False),
        Door("smtp", host, settings.submission_tls_port, True),
        Door("smtp", host, settings.submission_port, False),
    )
    return tuple(door for door in all_of_them if door.port)


def autoconfig(found: tuple[Door, ...], domain: str) -> bytes:
    """Thunderbird's client configuration, version 1.1. `domain`: as the client asked."""
    root = Element("clientConfig", version="1.1")
    provider = SubElement(root, "emailProvider", id=domain)
    SubElement(provider, "domain").text = domain
    SubElement(provider, "displayName").text = domain
    SubElement(provider, "displayShortName").text = domain
    for door in found:
        outgoing = door.kind == "smtp"
        server = SubElement(provider, "outgoingServer" if outgoing else "incomingServer", type=door.kind)
        SubElement(server, "hostname").text = door.host
        SubElement(server, "port").text = str(door.port)
        SubElement(server, "socketType").text = "SSL" if door.implicit else "STARTTLS"
        SubElement(server, "username").text = "%EMAILADDRESS%"
        SubElement(server, "authentication").text = "password-cleartext"
    return _document(root)


_RESPONSE = "http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006"
_OUTLOOK = "http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a"


def autodiscover(found: tuple[Door, ...], address: str) -> bytes:
    """Outlook's POX answer for IMAP, POP3 and SMTP. `address`: as the client asked; its existence is not looked at."""
    root = Element("Autodiscover", xmlns=_RESPONSE)
    response = SubElement(root, "Response", xmlns=_OUTLOOK)
    account = SubElement(response, "Account")
    SubElement(account, "AccountType").text = "email"
    SubElement(account, "Action").text = "settings"
    for kind in ("imap", "pop3", "smtp"):
        door = next((d for d in found if d.kind == kind), None)  # Outlook takes one of each: the best
        if door is None:
            continue
        protocol = SubElement(account, "Protocol")
        for name, value in (
            ("Type", kind.upper()),
            ("Server", door.host),
            ("Port", str(door.port)),
            ("LoginName", address),
            ("SPA", "off"),
            ("SSL", "on" if door.implicit else "off"),
            ("Encryption", "SSL" if door.implicit else "TLS"),
            ("AuthRequired", "on"),
        ):
            SubElement(protocol, name).text = value
    return _document(root)


def autodiscover_error(code: int, message: str, now: datetime) -> bytes:
    """A POX error, which goes out with HTTP 200 (600: invalid request, 601: provider unavailable)."""
    root = Element("Autodiscover", xmlns=_RESPONSE)
    response = SubElement(root, "Response")
    error = SubElement(response, "Error", Time=f"{now:%H:%M:%S}.{now.microsecond:06}0", Id="1")
    SubElement(error, "ErrorCode").text = str(code)
    SubElement(error, "Message").text = message
    SubElement(error, "DebugData")
    return _document(root)


def _document(root: Element) -> bytes:
    return f'<?xml version="1.0" encoding="utf-8"?>\n{tostring(root, encoding="unicode")}\n'.encode()
