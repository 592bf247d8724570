"""One signature field over canonical octets: what DKIM-Signature, ARC-Message-Signature and ARC-Seal share. Pure.

dkimpy signs too, but a message of 50 kB takes it 10 ms of CPU with an RSA key (1 ms here, both signatures), it does its
RSA in plain Python integers and it refuses headers that mail in the wild has. It verifies what is made here, in the
tests.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256

from services.core.dkim.canonical import Bodies, relaxed
from services.core.dkim.keys import SigningKey

Fields: TypeAlias = Mapping[str, Sequence[bytes]]

_EACH = 100  # fields of one name that are signed; no letter has more
_LINE = 74

# RFC 6376 5.4.1, and what newer clients act on. Each is signed as often as it is there ...
_AS_THERE = (
    *("sender", "resent-date", "resent-from", "resent-sender", "resent-to", "resent-cc", "resent-message-id"),
    *("content-id", "content-description", "content-disposition", "auto-submitted", "autocrypt"),
    *("list-id", "list-help", "list-unsubscribe", "list-unsubscribe-post", "list-subscribe", "list-post"),
    *("list-owner", "list-archive"),
)
# ... these, where there are any, once more, so that nobody can add another ...
_FROZEN = (
    *("date", "message-id", "in-reply-to", "references"),
    *("mime-version", "content-type", "content-transfer-encoding"),
)
# ... and these also where there are none: readers show them (RFC 6376 8.15).
_ALWAYS = ("from", "reply-to", "to", "cc", "subject")
SIGNED = (*_ALWAYS, *_FROZEN, *_AS_THERE)


def fields_of(octets: bytes, end: int, names: Sequence[str]) -> dict[str, list[bytes]]:
    """The fields of these lower-case names before `end`, by name, in their order, in relaxed form with a CRLF."""
    wanted = b"|".join(name.encode() for name in names)
    found: dict[str, list[bytes]] = defaultdict(list)
    for match in re.finditer(rb"(?im)^(%b)[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)" % wanted, octets[:end]):
        name = match[1].lower()
        found[name.decode()].append(relaxed(name, match[2].removesuffix(b"\r")))
    return found


def body_hash(octets: bytes, start: int) -> str:
    """The bh= of the body that begins at `start`, in relaxed form."""
    return base64.b64encode(Bodies(octets, start).sha256("relaxed")).decode()


def chosen(fields: Fields, also: Sequence[str] = ()) -> tuple[list[str], bytes]:
    """The h= of a message with these fields, `also` further names as often as they are there; and what they cover."""
    names: list[str] = []
    covered: list[bytes] = []
    for name in (*SIGNED, *also):
        # RFC 6376 5.4.2: fields of one name are signed from the last to the first.
        there = fields.get(name, ())[::-1]
        covered += there[:_EACH]
        names += [name] * min(_EACH, len(there) + (name in _ALWAYS or (name in _FROZEN and bool(there))))
    return names, b"".join(covered)


def signed(name: str, tags: Sequence[tuple[str, str]], covered: bytes, key: SigningKey) -> bytes:
    """The field `name` with these tags and the b= that signs `covered` and the field itself; ends with CRLF."""
    lead = f"{name}: " + _folded([f"{tag}={value};" for tag, value in tags], len(name) + 2) + "\r\n b="
    data = covered + relaxed(name.lower().encode(), lead.encode()[len(name) + 1 :]).removesuffix(b"\r\n")
    return f"{lead}{_wrapped(base64.b64encode(_sign(key, data)).decode())}\r\n".encode()


def algorithm(key: SigningKey) -> str:
    """The a= of a key."""
    return f"{key.algorithm}-sha256"


def _sign(key: SigningKey, data: bytes) -> bytes:
    if isinstance(key.private, RSAPrivateKey):
        return key.private.sign(data, PKCS1v15(), SHA256())
    # RFC 8463 3: it is the hash that is signed.
    return key.private.sign(hashlib.sha256(data).digest())


def _folded(words: Sequence[str], column: int) -> str:
    """The words with a space or a fold between them; long lists are broken behind their colons."""
    text = ""
    for word in words:
        lead = " " if text else ""
        if text and column + len(word) > _LINE:
            lead, column = "\r\n ", 1
        if column + len(word) > _LINE and ":" in word:
            word, column = _broken(word, column)
        else:
            column += len(lead) + len(word)
        text += lead + word
    return text


def _broken(word: str, column: int) -> tuple[str, int]:
    lines, line = [], ""
    for part in re.findall(r"[^:]+:?", word):
        if line and column + len(line) + len(part) > _LINE:
            lines.append(line)
            line, column = "", 1
        line += part
    return "\r\n ".join([*lines, line]), column + len(line)


def _wrapped(text: str) -> str:
    width = _LINE - 3  # the first line has "b=" before it
    return "\r\n ".join(text[at : at + width] for at in range(0, len(text), width))
