"""Keys, a DNS that shows them, and messages that are hard to sign."""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import cache

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from services.core.dkim import zone
from services.core.dkim.keys import ED25519, RSA, SigningKey, load, make

PLAIN = (
    b"Received: from [192.0.2.1] (helo)\r\n by mx.posta.test\r\n"
    b"From: Alice <alice@posta.test>\r\nTo: carol@remote.test\r\nSubject: a  folded\r\n\t subject \r\n"
    b"Date: Wed, 25 Nov 2026 10:00:00 +0000\r\nMessage-ID: <one@posta.test>\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    b"Gr\xc3\xbc\xc3\x9fe \t aus\tK\xc3\xb6ln \r\n\r\n.dot\r\n \r\n\r\n"
)
HEAD, BODY = PLAIN.split(b"\r\n\r\n", 1)

# Well-formed enough that verifiers agree on what they see.
GOOD = {
    "plain": PLAIN,
    "no body": HEAD + b"\r\n\r\n",
    "no blank line": HEAD + b"\r\n",
    "blank body": HEAD + b"\r\n\r\n\r\n\r\n",
    "white space for a body": HEAD + b"\r\n\r\n \t\r\n",
    "no line end at the end": HEAD + b"\r\n\r\nthe end",
    "white space at the end": HEAD + b"\r\n\r\nthe end  \t",
    "bare line feeds": HEAD + b"\r\n\r\none\ntwo \nthree\r\n",
    "octets of no charset": HEAD + b"\r\n\r\n" + bytes(range(14, 256)) + b"\r\n",
    "one long line": HEAD + b"\r\n\r\n" + b"x y " * 600_000,
    "many blocks": HEAD + b"\r\n\r\n" + b"line  of\ttext \r\n" * 200_000,
    "much white space": HEAD + b"\r\n\r\n" + b" \t" * 2_000 + b"x" + b"\r\n" * 10_000,
    "eight-bit header": PLAIN.replace(b"Alice", b"\xc3\x84lice").replace(b"folded", b"\xff"),
    "huge header": b"X-Long: " + b"a" * 300_000 + b"\r\n" + PLAIN,
    "hundreds of a name": b"List-Id: <x>\r\n" * 300 + PLAIN,
    "hundreds of recipients fields": b"To: x@remote.test\r\n" * 300 + PLAIN,
    "references": PLAIN.replace(b"MIME", b"References: " + b"\r\n <id@posta.test>" * 400 + b"\r\nMIME"),
    "names in any case": PLAIN.replace(b"From:", b"fROM:").replace(b"Subject:", b"SUBJECT:"),
}
# What verifiers refuse or see differently: signing it must do no harm.
BAD = {
    "nothing": b"",
    "line end": b"\r\n",
    "no header": b"\r\nbody only\r\n",
    "no field": b"what is this\r\n\r\nbody\r\n",
    "NUL": b"From: a\x00@posta.test\r\n\x00\r\n\r\n\x00",
    "only colons": b":::\r\n" * 100,
    "starts folded": b" folded\r\nFrom: a@posta.test\r\n\r\n",
    "bare returns": b"From: a@posta.test\r\rTo: x\r\n\r\nbody\r\r\n\r",
    "line feeds alone": PLAIN.replace(b"\r\n", b"\n"),
    "open field": b"From: a@posta.test\r\nSubject",
    "many from": b"From: a@posta.test\r\n" * 5000 + b"\r\n",
}


@cache
def _key(algorithm: str, domain: str) -> SigningKey:
    return load(domain, f"sel-{algorithm}", make(algorithm, None).private_key, None)


def key(algorithm: str, domain: str = "posta.test") -> SigningKey:
    """A key of the domain, the same one each time."""
    return _key(algorithm, domain)


def pair(domain: str = "posta.test") -> tuple[SigningKey, ...]:
    return key(ED25519, domain), key(RSA, domain)


def public(key_: SigningKey) -> str:
    """The p= of any key, computed by another road than ours."""
    shown = key_.private.public_key()
    if key_.algorithm == RSA:
        return base64.b64encode(shown.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
    return base64.b64encode(shown.public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def dns(*keys: SigningKey) -> Callable[..., bytes]:
    """What dkimpy asks for key records."""
    records = {
        f"{zone.name(k.domain, k.selector)}.".encode(): zone.value(k.algorithm, public(k)).encode() for k in keys
    }
    return lambda name, timeout=5: records.get(name, b"")
