"""The exchanges as their RFCs print them, and what breaks them."""

from __future__ import annotations

from base64 import b64decode

import pytest

from services.core.auth import scram
from services.core.auth.sasl import (
    Accepted,
    Attempt,
    Broken,
    Challenge,
    KeysWanted,
    Plain,
    Plaintext,
    ProofGiven,
    Scram,
    offered,
)

# RFC 7677 3
NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
SALT = b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
CHALLENGE = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
FINAL = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
SIGNATURE = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def _until_final() -> Scram:
    exchange = Scram(lambda: NONCE)
    step = exchange.start(FIRST)
    assert isinstance(step, KeysWanted)
    assert step.go_on(SALT, 4096) == Challenge(CHALLENGE)
    return exchange


def test_scram_is_the_exchange_of_rfc_7677() -> None:
    exchange = _until_final()
    proof = exchange.answer(FINAL)
    assert isinstance(proof, ProofGiven)
    keys = scram.keys("pencil", SALT, 4096)
    assert scram.proves(keys.stored_key, proof.auth_message, proof.proof)
    assert not scram.proves(scram.keys("pencils", SALT, 4096).stored_key, proof.auth_message, proof.proof)
    assert proof.go_on(scram.server_signature(keys.server_key, proof.auth_message)) == Challenge(SIGNATURE)
    assert exchange.answer(b"") == Accepted()


@pytest.mark.parametrize(
    "first",
    [
        b"p=tls-unique,,n=user,r=abc",  # RFC 5802 6: binding we never offered
        b"n,,m=ext,n=user,r=abc",  # RFC 5802 5.1: a mandatory extension
        b"n,,n=us=er,r=abc",
        b"n,,n=user",
        b"n,,n=,r=abc",
        b"n,x=y,n=user,r=abc",
        b"\xff\xfe",
        b"",
        b"n,,n=user,r=" + b"x" * 2000,
    ],
)
def test_a_malformed_beginning_ends_scram(first: bytes) -> None:
    assert isinstance(Scram().start(first), Broken)


@pytest.mark.parametrize(
    "final",
    [
        FINAL.replace(b"biws", b"eSws"),  # "y,,": the flag was changed on the way
        FINAL.replace(b"rOpr", b"rOpX"),
        FINAL.replace(b"dHzb", b"d*zb"),
        FINAL.partition(b",p=")[0],
        b"",
    ],
)
def test_a_changed_ending_ends_scram(final: bytes) -> None:
    assert isinstance(_until_final().answer(final), Broken)


def test_scram_names_carry_commas_and_equals_signs() -> None:
    step = Scram().start(b"y,a=o=2Cb=3D,n=o=2Cb=3D,r=abc,x=later")
    assert isinstance(step, KeysWanted)
    assert (step.username, step.authzid) == ("o,b=", "o,b=")


def test_plain_asks_when_it_is_given_nothing() -> None:
    exchange = Plain()
    assert exchange.start(None) == Challenge(b"")
    assert exchange.answer(b"\0alice\0s\xc3\xa9cret") == Attempt("alice", "sécret", "")


@pytest.mark.parametrize("octets", [b"", b"alice\0pw", b"\0\0pw", b"\0alice\0", b"\0a\0b\0c", b"\0\xff\0pw"])
def test_malformed_plain_is_no_attempt(octets: bytes) -> None:
    assert isinstance(Plain().start(octets), Broken)


def test_login_asks_twice_or_once() -> None:
    exchange = Plaintext()
    assert exchange.start(None) == Challenge(b"Username:")
    assert exchange.answer(b"alice") == Challenge(b"Password:")
    assert exchange.answer(b"pw") == Attempt("alice", "pw", "")
    assert Plaintext().start(b"alice") == Challenge(b"Password:")


def test_nothing_is_offered_in_the_clear() -> None:
    assert offered(tls=True) == ("SCRAM-SHA-256", "PLAIN", "LOGIN")
    assert offered(tls=False) == ()
    assert offered(tls=False, plaintext_auth=True) == offered(tls=True)


@pytest.mark.parametrize(
    ("given", "prepared"),  # RFC 4013 3
    [("I­X", "IX"), ("user", "user"), ("USER", "USER"), ("ª", "a"), ("Ⅸ", "IX"), ("a b", "a b")],
)
def test_saslprep(given: str, prepared: str) -> None:
    assert scram.prepare(given) == prepared


@pytest.mark.parametrize("given", ["\x07", "ا1"])
def test_what_saslprep_forbids_stays_as_it_is(given: str) -> None:
    assert scram.prepare(given) == given
