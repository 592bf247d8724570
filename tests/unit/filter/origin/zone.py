"""A DNS of a few lines, and keys to sign with."""

import base64
from collections.abc import Mapping

import dns.rdata
import dns.rdataclass
import dns.rdatatype
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from dns.rdtypes.ANY.TXT import TXT

from services.core.dns import Answer, DnsUnavailable, NoSuchName

DEAD = "DEAD"


class Zone:
    """`{"example.org": ["TXT v=spf1 -all", "MX 10 mx.example.org."]}`; the record DEAD is a name nobody answers for."""

    def __init__(self, records: Mapping[str, list[str]]) -> None:
        self.records = dict(records)
        self.asked: list[tuple[str, str]] = []

    async def query(self, name: str, kind: str) -> Answer:
        name = name.rstrip(".").lower()
        self.asked.append((name, kind))
        if name not in self.records:
            raise NoSuchName(name)
        if DEAD in self.records[name]:
            raise DnsUnavailable(f"{kind} of {name}: nobody answers")
        found = [record.partition(" ") for record in self.records[name]]
        return Answer(tuple(_record(kind, text) for of, _, text in found if of == kind), False, 60)


def _record(kind: str, text: str) -> dns.rdata.Rdata:
    if kind != "TXT":
        return dns.rdata.from_text("IN", kind, text)
    octets = text.encode("utf-8")
    pieces = [octets[at : at + 255] for at in range(0, len(octets), 255)] or [b""]
    return TXT(dns.rdataclass.IN, dns.rdatatype.TXT, pieces)


class Signer:
    """A domain's keys: RSA at selector "rsa", Ed25519 at "ed"; in the form that dkimpy wants them."""

    def __init__(self, domain: str, bits: int = 1024) -> None:
        self.domain = domain
        private = rsa.generate_private_key(65537, bits)
        self.rsa = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        self.rsa_public = private.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.rsa_public_bare = private.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.PKCS1
        )
        other = ed25519.Ed25519PrivateKey.generate()
        self.ed = base64.b64encode(other.private_bytes_raw())
        self.ed_public = other.public_key().public_bytes_raw()

    def zone(self) -> dict[str, list[str]]:
        return {
            f"rsa._domainkey.{self.domain}": [f"TXT v=DKIM1; k=rsa; p={base64.b64encode(self.rsa_public).decode()}"],
            f"ed._domainkey.{self.domain}": [f"TXT v=DKIM1; k=ed25519; p={base64.b64encode(self.ed_public).decode()}"],
        }
