"""Public keys as the DNS has them, and the one place that calculates with them (RFC 6376 3.6.1, RFC 8463). Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from services.filter.origin import tags
from services.filter.origin.tags import BadTags

# RFC 8301 3.2; a longer key than the largest would only cost us time.
_FEWEST_BITS: Final = 1024
_MOST_BITS: Final = 8192


class BadKey(ValueError):
    """A record that no signature can be checked with; the text says why."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key. `strict`: it speaks for its domain alone, not for those below; `testing`: failures do not count."""

    public: RSAPublicKey | Ed25519PublicKey
    strict: bool = False
    testing: bool = False


def parse(text: str) -> Key:
    """The key of a record. Raises BadKey."""
    try:
        said = tags.parse(text)
    except BadTags as error:
        raise BadKey(f"the key's record is {error}") from error
    if said.get("v", "DKIM1") != "DKIM1" or ("v" in said and next(iter(said)) != "v"):
        raise BadKey("the key is of another version")
    if "h" in said and "sha256" not in tags.listed(said["h"]):
        raise BadKey("the key is not for SHA-256")
    if not {"*", "email"} & set(tags.listed(said.get("s", "*"))):
        raise BadKey("the key is not for mail")
    if not said.get("p"):
        raise BadKey("the key is revoked" if "p" in said else "the record has no key")
    flags = tags.listed(said.get("t", ""))
    return Key(_public(said.get("k", "rsa").lower(), said["p"]), "s" in flags, "y" in flags)


def verifies(key: Key, algorithm: str, signed: bytes, over: bytes) -> bool:
    """Whether `signed` is this key's signature of `over`. Raises BadKey where the key is not of that algorithm."""
    try:
        if algorithm == "rsa-sha256" and isinstance(key.public, RSAPublicKey):
            key.public.verify(signed, over, PKCS1v15(), SHA256())
        elif algorithm == "ed25519-sha256" and isinstance(key.public, Ed25519PublicKey):
            # RFC 8463 3: Ed25519 signs the SHA-256 hash of what RSA would sign.
            key.public.verify(signed, hashlib.sha256(over).digest())
        else:
            raise BadKey("the key is of another algorithm")
    except InvalidSignature:
        return False
    return True


def _public(kind: str, encoded: str) -> RSAPublicKey | Ed25519PublicKey:
    try:
        octets = base64.b64decode(tags.packed(encoded), validate=True)
        if kind == "ed25519":
            return Ed25519PublicKey.from_public_bytes(octets)
        public = load_der_public_key(octets) if kind == "rsa" else None
    except (binascii.Error, ValueError, UnsupportedAlgorithm) as error:
        raise BadKey("the key cannot be read") from error
    if not isinstance(public, RSAPublicKey):
        raise BadKey("the key is of an unknown kind")
    if not _FEWEST_BITS <= public.key_size <= _MOST_BITS:
        raise BadKey(f"the key has {public.key_size} bits")
    return public
