"""Private keys as the store keeps them: PKCS #8 in PEM, encrypted where the operator gives a secret."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

RSA, ED25519 = "rsa", "ed25519"  # the k= tag of their records
_RSA_BITS = 2048  # RFC 8301 3.2; a longer one does not fit into one DNS answer by UDP
_RSA_LEAST, _RSA_MOST = 1024, 4096  # RFC 8301 3.2: what every verifier takes
_SEED_OCTETS = 32  # of an Ed25519 key; some write its public half behind it

Private: TypeAlias = RSAPrivateKey | Ed25519PrivateKey


class KeyUnusable(Exception):
    """A private key cannot be read; the text says which and why, never what was in it."""


class Made(NamedTuple):
    """A new key; `public_key` is the p= tag of its record."""

    algorithm: str
    private_key: str
    public_key: str


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key ready to sign for its domain."""

    domain: str
    selector: str
    private: Private

    @property
    def algorithm(self) -> str:
        """`rsa` or `ed25519`."""
        return RSA if isinstance(self.private, RSAPrivateKey) else ED25519


def make(algorithm: str, secret: str | None) -> Made:
    """A new key pair. RSA takes some tenths of a second of CPU."""
    private: Private
    if algorithm == RSA:
        private = generate_private_key(65537, _RSA_BITS)
    else:
        private = Ed25519PrivateKey.generate()
    return _made(private, secret)


def adopt(pem: str, secret: str | None) -> Made:
    """A key that another signer has used, from PEM or (Ed25519 alone) from bare base64; raises `KeyUnusable`."""
    private: object
    try:
        if "-----BEGIN" in pem:
            private = load_pem_private_key(pem.encode(), None)
        else:
            private = Ed25519PrivateKey.from_private_bytes(base64.b64decode(pem, validate=False)[:_SEED_OCTETS])
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyUnusable("that is no private key, or one with a passphrase") from error
    if isinstance(private, RSAPrivateKey):
        # RFC 8301 3.2
        if not _RSA_LEAST <= private.key_size <= _RSA_MOST:
            raise KeyUnusable(f"an RSA key of {private.key_size} bits signs nothing that verifiers accept")
    elif not isinstance(private, Ed25519PrivateKey):
        raise KeyUnusable("that is a private key of a kind that DKIM does not have")
    return _made(private, secret)


def _made(private: Private, secret: str | None) -> Made:
    algorithm = RSA if isinstance(private, RSAPrivateKey) else ED25519
    encryption = BestAvailableEncryption(secret.encode()) if secret else NoEncryption()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    return Made(algorithm, pem.decode(), base64.b64encode(_public(private)).decode())


def load(domain: str, selector: str, pem: str, secret: str | None) -> SigningKey:
    """The key that `pem` holds; raises `KeyUnusable`. A plain one is read whether or not there is a secret."""
    encrypted = "ENCRYPTED" in pem.partition("\n")[0]
    if encrypted and not secret:
        raise KeyUnusable(f"DKIM key {selector} of {domain} is encrypted and dkim.key_secret is not set")
    try:
        private = load_pem_private_key(pem.encode(), secret.encode() if encrypted and secret else None)
    except ValueError as error:
        why = "dkim.key_secret does not open it" if encrypted else "it is no private key"
        raise KeyUnusable(f"DKIM key {selector} of {domain} cannot be read: {why}") from error
    if not isinstance(private, RSAPrivateKey | Ed25519PrivateKey):
        raise KeyUnusable(f"DKIM key {selector} of {domain} is of a kind that DKIM does not have")
    return SigningKey(domain, selector, private)


def _public(private: Private) -> bytes:
    if isinstance(private, Ed25519PrivateKey):
        return private.public_key().public_bytes_raw()  # RFC 8463 4.2: the 32 octets alone
    return private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
