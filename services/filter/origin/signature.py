"""What a DKIM-Signature or an ARC-Message-Signature says of itself (RFC 6376 3.5, RFC 8617 4.1.2). Pure."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final

from services.filter.origin import tags
from services.filter.origin.tags import BadTags

ALGORITHMS: Final = frozenset({"rsa-sha256", "ed25519-sha256"})
_FORMS: Final = frozenset({"simple", "relaxed"})
_SKEW_S: Final = 3600  # a signer's clock may be ahead of ours
_NUMBER: Final = re.compile(r"[0-9]{1,12}")
# RFC 5321 4.1.2 for d= and i=; a selector may have several labels.
_DOMAIN: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62}))*")


class BadSignature(ValueError):
    """Not a signature that could be checked: PERMFAIL of RFC 6376 3.9; the text says why."""


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature. `identity` is the domain of i=; `length` None: the whole body is signed."""

    algorithm: str
    signed: bytes
    body_hash: bytes
    header_form: str
    body_form: str
    domain: str
    selector: str
    headers: tuple[str, ...]
    identity: str
    length: int | None = None
    expires: int | None = None

    @property
    def key_name(self) -> str:
        """Where its key is."""
        return f"{self.selector}._domainkey.{self.domain}"

    @property
    def prefix(self) -> str:
        """What tells it from others of the message (RFC 6008)."""
        return base64.b64encode(self.signed).decode()[:8]


def parse(text: str, *, arc: bool = False) -> Signature:
    """The signature in an unfolded field value; `arc`: an ARC-Message-Signature. Raises BadSignature."""
    try:
        said = tags.parse(text)
    except BadTags as error:
        raise BadSignature(str(error)) from error
    if not arc and said.get("v") != "1":
        raise BadSignature("not version 1")
    domain = named(said, "d")
    identity = domain if arc else said.get("i", f"@{domain}").rpartition("@")[2].lower()
    if identity != domain and not identity.endswith(f".{domain}"):
        raise BadSignature("i= is not of the domain d=")  # RFC 6376 6.1.1
    if "dns/txt" not in tags.listed(said.get("q", "dns/txt")):
        raise BadSignature("the key is not in the DNS")
    headers = tags.listed(_required(said, "h"))
    # RFC 6376 6.1.1, RFC 8617 4.1.2: a signature without the author is worth nothing, one over the seals cannot be.
    lower = {name.lower() for name in headers}
    if "from" not in lower and not arc:
        raise BadSignature("From is not signed")
    if arc and "arc-seal" in lower:
        raise BadSignature("ARC-Seal is signed")
    header_form, _, body_form = said.get("c", "simple/simple").lower().partition("/")
    if not {header_form, body_form or "simple"} <= _FORMS:
        raise BadSignature("unknown canonical form")
    return Signature(
        algorithm=algorithm(said),
        signed=octets(said, "b"),
        body_hash=octets(said, "bh"),
        header_form=header_form,
        body_form=body_form or "simple",
        domain=domain,
        selector=named(said, "s"),
        headers=headers,
        identity=identity,
        length=_number(said, "l"),
        expires=_expiry(said),
    )


def late(signature: Signature, now: float) -> bool:
    """Whether it has expired (RFC 6376 3.5, x=)."""
    return signature.expires is not None and signature.expires + _SKEW_S < now


def algorithm(said: dict[str, str]) -> str:
    """a=, of those that are still good. Raises BadSignature."""
    name = _required(said, "a").lower()
    if name not in ALGORITHMS:
        # RFC 8301 3.1: rsa-sha1 must not be used any more.
        raise BadSignature(f"algorithm {name} is not supported")
    return name


def named(said: dict[str, str], tag: str) -> str:
    """A domain or selector. Raises BadSignature."""
    value = _required(said, tag)
    if not value.isascii():
        try:
            value = value.encode("idna").decode("ascii")  # RFC 8616 4: U-labels may stand here
        except UnicodeError as error:
            raise BadSignature(f"{tag}= is not a domain") from error
    if _DOMAIN.fullmatch(value) is None:
        raise BadSignature(f"{tag}= is not a domain")
    return value.lower()


def octets(said: dict[str, str], tag: str) -> bytes:
    """A value in base64. Raises BadSignature."""
    try:
        return base64.b64decode(tags.packed(_required(said, tag)), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadSignature(f"{tag}= is not base64") from error


def _required(said: dict[str, str], tag: str) -> str:
    if not (value := said.get(tag, "")):
        raise BadSignature(f"{tag}= is missing")
    return value


def _number(said: dict[str, str], tag: str) -> int | None:
    if (value := said.get(tag)) is None:
        return None
    if _NUMBER.fullmatch(value) is None:
        raise BadSignature(f"{tag}= is not a number")
    return int(value)


def _expiry(said: dict[str, str]) -> int | None:
    made, expires = _number(said, "t"), _number(said, "x")
    if made is not None and expires is not None and expires <= made:
        raise BadSignature("it expires before it was made")
    return expires
