"""Certificates against TLSA records, without a connection."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from services.mxrouter.dane import Tlsa, Untrusted, verify
from services.mxrouter.names import covers

NOW = datetime(2026, 11, 25, tzinfo=UTC)
NAMES = ("mx.a.test", "a.test")


class Authority:
    """A certificate that can sign others."""

    def __init__(self, name: str, by: Authority | None = None, ca: bool = True, days: int = 10, *sans: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = by or self
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.certificate.subject if by else subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - timedelta(days=20))
            .not_valid_after(NOW + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
        )
        if sans:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([x509.DNSName(s) for s in sans]), critical=False
            )
        self.certificate = builder.sign(issuer.key, hashes.SHA256())

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def spki(self) -> bytes:
        return self.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


ROOT = Authority("root")
MIDDLE = Authority("middle", ROOT)
LEAF = Authority("leaf", MIDDLE, False, 10, "mx.a.test")
CHAIN = [LEAF.der, MIDDLE.der, ROOT.der]


def sha256(octets: bytes) -> bytes:
    return hashlib.sha256(octets).digest()


@pytest.mark.parametrize(
    ("record", "chain"),
    [
        (Tlsa(3, 0, 0, LEAF.der), CHAIN[:1]),
        (Tlsa(3, 1, 0, LEAF.spki), CHAIN[:1]),
        (Tlsa(3, 0, 1, sha256(LEAF.der)), CHAIN[:1]),
        (Tlsa(3, 1, 2, hashlib.sha512(LEAF.spki).digest()), CHAIN[:1]),
        (Tlsa(2, 0, 1, sha256(ROOT.der)), CHAIN),
        (Tlsa(2, 1, 1, sha256(MIDDLE.spki)), CHAIN[:2]),
        (Tlsa(2, 0, 0, MIDDLE.der), CHAIN[:1]),
        (Tlsa(2, 0, 0, ROOT.der), CHAIN[:2]),
    ],
)
def test_what_a_record_vouches_for(record: Tlsa, chain: list[bytes]) -> None:
    verify([Tlsa(3, 1, 1, bytes(32)), Tlsa(0, 0, 0, b""), record], chain, NAMES, NOW)


def refused(record: Tlsa, chain: list[bytes], names: tuple[str, ...] = NAMES) -> str:
    with pytest.raises(Untrusted) as caught:
        verify([record], chain, names, NOW)
    return caught.value.result


def test_what_it_does_not() -> None:
    root = Tlsa(2, 0, 1, sha256(ROOT.der))
    assert refused(Tlsa(3, 0, 1, sha256(ROOT.der)), CHAIN) == "validation-failure"
    assert refused(Tlsa(2, 0, 1, sha256(LEAF.der)), CHAIN) == "validation-failure"
    assert refused(Tlsa(1, 0, 1, sha256(LEAF.der)), CHAIN) == "validation-failure"
    assert refused(root, CHAIN[:2]) == "validation-failure", "the CA is nowhere to be seen"
    assert refused(root, [LEAF.der, ROOT.der]) == "certificate-not-trusted", "the link between them is missing"
    assert refused(root, CHAIN, ("mx.b.test",)) == "certificate-host-mismatch"
    assert refused(root, []) == "validation-failure"
    assert refused(root, [b"garbage"]) == "validation-failure"


def test_a_chain_is_not_made_by_whoever_has_a_certificate() -> None:
    """A leaf of the CA signs another one: it is no CA."""
    victim = Authority("evil", LEAF, False, 10, "mx.a.test")

    assert refused(Tlsa(2, 0, 1, sha256(ROOT.der)), [victim.der, *CHAIN]) == "certificate-not-trusted"


def test_dates_count_for_a_ca_alone() -> None:
    old = Authority("old", ROOT, False, -1, "mx.a.test")

    assert refused(Tlsa(2, 0, 1, sha256(ROOT.der)), [old.der, ROOT.der]) == "certificate-expired"
    verify([Tlsa(3, 0, 1, sha256(old.der))], [old.der], NAMES, NOW)


@pytest.mark.parametrize(
    ("pattern", "name", "whether"),
    [
        ("mx.a.test", "MX.a.test.", True),
        ("*.a.test", "mx.a.test", True),
        ("*.a.test", "a.test", False),
        ("*.a.test", "b.mx.a.test", False),
        ("*.a.test", ".a.test", False),
        ("m*.a.test", "mx.a.test", False),
        ("*", "test", False),
        ("a.test", "xa.test", False),
    ],
)
def test_patterns(pattern: str, name: str, whether: bool) -> None:
    assert covers(pattern, name) is whether
