"""DANE for SMTP (RFC 7672): what TLSA records say of a host, and whether a certificate chain agrees.

Only usages 2 (this CA) and 3 (this certificate) mean anything on port 25 (RFC 7672 3.1.3); records of other kinds
count as unusable: they still ask for TLS, which then cannot be authenticated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from services.core.dns import NoSuchName
from services.mxrouter.names import covers
from services.mxrouter.resolve import Asks, Host

# More than an honest chain has; the peer decides how many it sends.
_LONGEST_CHAIN: Final = 10
_CA, _END = 2, 3


class Tlsa(NamedTuple):
    """One TLSA record (RFC 6698 2.1)."""

    usage: int
    selector: int
    matching: int
    octets: bytes

    @property
    def usable(self) -> bool:
        return self.usage in (_CA, _END) and self.selector in (0, 1) and self.matching in (0, 1, 2)


class Untrusted(Exception):
    """The peer is not who it should be. `result` is the name that TLS-RPT has for it (RFC 8460 4.3)."""

    def __init__(self, result: str, text: str) -> None:
        super().__init__(text)
        self.result = result


async def records(dns: Asks, host: Host, port: int) -> tuple[str, tuple[Tlsa, ...]]:
    """The TLSA base domain of a host and its records; none where DNSSEC does not prove them. Raises DnsUnavailable.

    A question that fails must not be taken for "none": that is what an attacker would make it do (RFC 7672 2.1).
    """
    for base in host.bases:
        try:
            answer = await dns.query(f"_{port}._tcp.{base}", "TLSA")
        except NoSuchName:
            continue
        if answer.authenticated and answer.records:
            return base, tuple(Tlsa(r.usage, r.selector, r.mtype, bytes(r.cert)) for r in answer.records)  # type: ignore[attr-defined]
    return "", ()


def verify(records: Sequence[Tlsa], chain: Sequence[bytes], names: Sequence[str], now: datetime) -> None:
    """Return if one of the records vouches for the chain (DER, leaf first). Raises Untrusted.

    `names`: what the certificate may be made out to, asked for under usage 2 alone (RFC 7672 3.1.1, 3.1.2).
    """
    try:
        certificates = [x509.load_der_x509_certificate(octets) for octets in chain[:_LONGEST_CHAIN]]
    except ValueError as error:
        raise Untrusted("validation-failure", f"the certificate cannot be read: {error}") from error
    if not certificates:
        raise Untrusted("validation-failure", "no certificate was sent")
    leaf, *others = certificates
    usable = [record for record in records if record.usable]
    if any(record.usage == _END and _matches(record, leaf) for record in usable):
        return
    anchors = [c for c in others + _enclosed(usable) if any(r.usage == _CA and _matches(r, c) for r in usable)]
    if not anchors:
        raise Untrusted("validation-failure", "no TLSA record matches the certificate")
    _anchored(leaf, others, anchors, now)
    if not any(covers(pattern, name) for pattern in _alternatives(leaf) for name in names):
        raise Untrusted("certificate-host-mismatch", f"the certificate is not made out to {' or '.join(names)}")


def _matches(record: Tlsa, certificate: x509.Certificate) -> bool:
    try:
        octets = (
            certificate.public_bytes(Encoding.DER)
            if record.selector == 0
            else certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        )
    except (ValueError, UnsupportedAlgorithm):
        return False
    if record.matching == 1:
        octets = hashlib.sha256(octets).digest()
    elif record.matching == 2:
        octets = hashlib.sha512(octets).digest()
    return octets == record.octets


def _enclosed(records: Sequence[Tlsa]) -> list[x509.Certificate]:
    """CAs that stand in the records themselves, so that servers need not send them (RFC 7672 3.1.2)."""
    found = []
    for record in records:
        if record.usage == _CA and (record.selector, record.matching) == (0, 0):
            try:
                found.append(x509.load_der_x509_certificate(record.octets))
            except ValueError:
                continue
    return found


def _anchored(
    leaf: x509.Certificate, others: Sequence[x509.Certificate], anchors: Sequence[x509.Certificate], now: datetime
) -> None:
    current = leaf
    for _ in range(_LONGEST_CHAIN):
        if not current.not_valid_before_utc <= now <= current.not_valid_after_utc:
            raise Untrusted("certificate-expired", f"a certificate of the chain ended {current.not_valid_after_utc}")
        if any(_issued(current, anchor) for anchor in anchors):
            return
        issuer = next((each for each in others if each != current and _is_ca(each) and _issued(current, each)), None)
        if issuer is None:
            break
        current = issuer
    raise Untrusted("certificate-not-trusted", "the chain does not lead to the CA that the TLSA record names")


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _alternatives(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return list(names.get_values_for_type(x509.DNSName))
