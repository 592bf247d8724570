"""DKIM: which domains signed the message, and whether it is still what they signed (RFC 6376)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.core.dkim.canonical import Bodies
from services.core.dns import DnsUnavailable
from services.core.mime.headers import Header, find_all, value_of
from services.filter.origin import covered, key, lookup, signature
from services.filter.origin.key import BadKey, Key
from services.filter.origin.lookup import Names
from services.filter.origin.results import Result
from services.filter.origin.signature import BadSignature, Signature

# Each costs a lookup and a verification. Lists sign several times; nobody honest signs more often.
MAX_SIGNATURES = 10


@dataclass(frozen=True, slots=True)
class Signed:
    """One signature of a message: where it stands and what it says, or why it cannot be checked."""

    field: Header
    signature: Signature | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one signature; `signature` is None where it could not be read."""

    result: Result
    reason: str
    signature: Signature | None = None

    @property
    def domain(self) -> str:
        return self.signature.domain if self.signature else ""


def signatures(octets: bytes, fields: tuple[Header, ...]) -> list[Signed]:
    """The signatures of a message, the uppermost first; not more than may be checked. Pure."""
    found = []
    for field in find_all(fields, b"dkim-signature")[:MAX_SIGNATURES]:
        try:
            found.append(Signed(field, signature.parse(value_of(octets, field).decode("utf-8", "replace"))))
        except BadSignature as error:
            found.append(Signed(field, None, str(error)))
    return found


async def fetch(names: Names, name: str) -> Key | Outcome:
    """The key at `name`, or the outcome of every signature that needs it. Never raises."""
    try:
        found = await lookup.texts(names, name)
    except DnsUnavailable as error:
        return Outcome(Result.TEMPERROR, str(error))
    if not found:
        return Outcome(Result.PERMERROR, f"no key at {name}")
    reason = ""
    # RFC 6376 3.6.2.2 leaves open what several records mean: the first that is a key.
    for text in found[:4]:
        try:
            return key.parse(text)
        except BadKey as error:
            reason = reason or str(error)
    return Outcome(Result.PERMERROR, reason)


def verify(
    octets: bytes, fields: tuple[Header, ...], bodies: Bodies, one: Signed, found: Key | Outcome, now: float
) -> Outcome:
    """Whether the signature stands, given its key. Pure; blocks for as long as the body takes to hash."""
    signed = one.signature
    if signed is None:
        return Outcome(Result.PERMERROR, one.reason)
    if isinstance(found, Outcome):
        return Outcome(found.result, found.reason, signed)
    if found.strict and signed.identity != signed.domain:
        return Outcome(Result.PERMERROR, "the key is not for domains below its own", signed)
    if signature.late(signed, now):
        return Outcome(Result.FAIL, "signature has expired", signed)
    problem = _problem(octets, fields, bodies, one.field, signed, found)
    if problem is None and signed.length is not None and signed.length < bodies.length(signed.body_form):
        # RFC 6376 8.2: anyone could have added what follows.
        return Outcome(Result.POLICY, "only a part of the body is signed", signed)
    if problem is None:
        return Outcome(Result.PASS, "", signed)
    # RFC 6376 3.6.1: of a key in testing, a failure says no more than no signature.
    return Outcome(Result.NEUTRAL if found.testing else problem.result, problem.reason, signed)


def stands(
    octets: bytes, fields: tuple[Header, ...], bodies: Bodies, field: Header, signed: Signature, found: Key
) -> bool:
    """Whether body and header are what was signed, expiry and policy apart."""
    return _problem(octets, fields, bodies, field, signed, found) is None


def _problem(
    octets: bytes, fields: Sequence[Header], bodies: Bodies, field: Header, signed: Signature, found: Key
) -> Outcome | None:
    if signed.length is not None and signed.length > bodies.length(signed.body_form):
        return Outcome(Result.FAIL, "body is shorter than signed", signed)
    if bodies.sha256(signed.body_form, signed.length) != signed.body_hash:
        return Outcome(Result.FAIL, "body has been altered", signed)
    others = [each for each in fields if each is not field]
    over = covered.selected(octets, others, signed.headers, signed.header_form)
    over += covered.unsigned(octets, field, signed.header_form)
    try:
        if key.verifies(found, signed.algorithm, signed.signed, over):
            return None
    except BadKey as error:
        return Outcome(Result.PERMERROR, str(error), signed)
    return Outcome(Result.FAIL, "signature does not match", signed)
