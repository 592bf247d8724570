"""SCRAM-SHA-256 keys and proofs (RFC 5802, RFC 7677). Pure."""

from __future__ import annotations

import hashlib
import hmac
import stringprep
import unicodedata
from typing import NamedTuple

SALT_OCTETS = 16
ITERATIONS = 10_000  # RFC 7677 4 asks for 4096 or more; this costs a phone a few milliseconds

_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


class Keys(NamedTuple):
    """What a server keeps instead of the password."""

    stored_key: bytes
    server_key: bytes


def prepare(text: str) -> str:
    """The SASLprep form (RFC 4013) of a name or password; text that SASLprep forbids is left as it came.

    Unassigned code points are let through, as RFC 5802 2.2 allows for queries: a password set under a newer Unicode
    must go on working.
    """
    if text.isascii() and text.isprintable():
        return text
    mapped = "".join(" " if stringprep.in_table_c12(c) else c for c in text if not stringprep.in_table_b1(c))
    prepared = unicodedata.normalize("NFKC", mapped)
    if any(table(c) for c in prepared for table in _PROHIBITED) or not _one_direction(prepared):
        return text
    return prepared


def _one_direction(text: str) -> bool:
    # RFC 3454 6: text with a right-to-left character has none left-to-right, and begins and ends with one.
    if not any(stringprep.in_table_d1(c) for c in text):
        return True
    ends = stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
    return ends and not any(stringprep.in_table_d2(c) for c in text)


def keys(password: str, salt: bytes, iterations: int) -> Keys:
    """The keys of that password: RFC 5802 3. Takes milliseconds, without the interpreter lock."""
    salted = hashlib.pbkdf2_hmac("sha256", prepare(password).encode("utf-8", "surrogatepass"), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return Keys(hashlib.sha256(client_key).digest(), hmac.digest(salted, b"Server Key", "sha256"))


def proves(stored_key: bytes, auth_message: bytes, proof: bytes) -> bool:
    """Whether the client that sent this proof knows the password behind the stored key."""
    if len(proof) != len(stored_key):
        return False
    signature = hmac.digest(stored_key, auth_message, "sha256")
    client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
    return hmac.compare_digest(hashlib.sha256(client_key).digest(), stored_key)


def server_signature(server_key: bytes, auth_message: bytes) -> bytes:
    """What proves to the client that the server knows its keys."""
    return hmac.digest(server_key, auth_message, "sha256")
