"""Key records as zone files and verifiers read them."""

from __future__ import annotations

import base64

import dns.zone
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_public_key,
)
from dkim import evaluate_pk

from services.core.dkim import zone
from services.core.dkim.keys import ED25519, RSA, KeyUnusable, adopt, load, make


@pytest.mark.parametrize("algorithm", [RSA, ED25519])
def test_a_zone_file_takes_the_line_and_a_verifier_the_record(algorithm: str) -> None:
    made = make(algorithm, None)
    text = zone.line("posta.test", "sel", algorithm, made.public_key)
    read = dns.zone.from_text(
        f"$ORIGIN posta.test.\n@ 60 IN SOA a b 1 1 1 1 1\n@ 60 IN NS a\n{text}\n", relativize=False
    )
    (record,) = read.get_rdataset("sel._domainkey.posta.test.", "TXT")
    assert all(len(piece) <= 255 for piece in record.strings)
    assert len(record.strings) == (2 if algorithm == RSA else 1)
    assert evaluate_pk("sel", b"".join(record.strings))[1:3] == (2048 if algorithm == RSA else 256, algorithm.encode())
    assert zone.shows([record.strings], made.public_key)


def test_the_public_halves_are_what_the_rfcs_want() -> None:
    rsa = load_der_public_key(base64.b64decode(make(RSA, None).public_key))
    assert isinstance(rsa, RSAPublicKey)
    assert rsa.key_size == 2048
    assert len(base64.b64decode(make(ED25519, None).public_key)) == 32


@pytest.mark.parametrize(
    ("records", "shown"),
    [
        ([[b"v=DKIM1; k=rsa; p=QUJD"]], True),
        ([[b"v=DKIM1;k=rsa;p=QU", b"JD"]], True),
        ([[b"k=rsa; p=QU JD; t=s"]], True),
        ([[b"v=spf1 -all"], [b"v=DKIM1; p=QUJD"]], True),
        ([[b"v=DKIM1; p=QUJD"], [b"v=DKIM1; p=QUJD"]], False),
        ([[b"v=DKIM1; p=qujd"]], False),
        ([[b"v=DKIM1; p="]], False),
        ([[b"v=DKIM2; p=QUJD"]], False),
        ([[b"\xff\x00"]], False),
        ([], False),
    ],
)
def test_what_counts_as_shown(records: list[list[bytes]], shown: bool) -> None:
    assert zone.shows(records, "QUJD") is shown


@pytest.mark.parametrize("algorithm", [RSA, ED25519])
@pytest.mark.parametrize("secret", [None, "a long secret"])
def test_keys_come_back(algorithm: str, secret: str | None) -> None:
    made = make(algorithm, secret)
    assert ("ENCRYPTED" in made.private_key) is (secret is not None)
    key = load("posta.test", "sel", made.private_key, secret)
    assert (key.domain, key.selector, key.algorithm) == ("posta.test", "sel", algorithm)


def test_a_plain_key_is_read_after_a_secret_was_set() -> None:
    assert load("posta.test", "sel", make(ED25519, None).private_key, "later").algorithm == ED25519


@pytest.mark.parametrize(
    ("pem", "secret", "why"),
    [
        (make(ED25519, "right").private_key, None, "dkim.key_secret is not set"),
        (make(ED25519, "right").private_key, "wrong", "does not open it"),
        ("rubbish", None, "no private key"),
    ],
)
def test_a_key_that_cannot_be_read_says_which_and_why(pem: str, secret: str | None, why: str) -> None:
    with pytest.raises(KeyUnusable, match=f"sel of posta.test.*{why}"):
        load("posta.test", "sel", pem, secret)


def test_keys_of_other_signers_are_taken_in_their_forms() -> None:
    ed25519 = Ed25519PrivateKey.generate()
    seed, public = ed25519.private_bytes_raw(), ed25519.public_key().public_bytes_raw()
    for text in (base64.b64encode(seed).decode(), base64.b64encode(seed + public).decode() + "\n"):
        made = adopt(text, "a secret")
        assert (made.algorithm, made.public_key) == (ED25519, base64.b64encode(public).decode())
        assert "ENCRYPTED" in made.private_key
    rsa = make(RSA, None)
    assert adopt(rsa.private_key, None) == rsa


@pytest.mark.parametrize(
    "pem",
    [
        "",
        "rubbish",
        make(RSA, "a passphrase").private_key,
        generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    ],
)
def test_what_is_no_key_for_dkim_is_not_taken(pem: str) -> None:
    with pytest.raises(KeyUnusable):
        adopt(pem, None)
