"""ARC: what earlier receivers say that they saw, and whether nobody changed it since (RFC 8617)."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from services.core.dkim.canonical import Bodies
from services.core.mime.headers import Header, value_of
from services.filter.origin import covered, dkim, key, signature, tags
from services.filter.origin.key import BadKey, Key
from services.filter.origin.results import Result
from services.filter.origin.signature import BadSignature, Signature
from services.filter.origin.tags import BadTags

MAX_SETS: Final = 50  # RFC 8617 4.2.1
_RESULTS, _MESSAGE, _SEAL = b"arc-authentication-results", b"arc-message-signature", b"arc-seal"
_INSTANCE: Final = re.compile(r"(?:^|;)[ \t]*i[ \t]*=[ \t]*([0-9]{1,2})[ \t]*(?=;|$)")
_DMARC_PASS: Final = re.compile(r";[ \t]*dmarc[ \t]*=[ \t]*pass(?![A-Za-z0-9-])([^;]*)", re.I)
_PLAIN: Final = re.compile(r"[A-Za-z0-9._-]+")
_FROM: Final = re.compile(r"header\.from[ \t]*=[ \t]*\"?([^\s;\"]+)", re.I)


class BadChain(ValueError):
    """The chain fails, for good (RFC 8617 5.2); the text says why."""


class Seal(NamedTuple):
    """What one ARC-Seal says."""

    algorithm: str
    signed: bytes
    domain: str
    selector: str
    cv: str

    @property
    def key_name(self) -> str:
        return f"{self.selector}._domainkey.{self.domain}"


@dataclass(frozen=True, slots=True)
class ArcSet:
    """The three fields of one instance."""

    results: Header
    message: Header
    seal: Header
    signature: Signature
    sealed: Seal


@dataclass(frozen=True, slots=True)
class Outcome:
    """ "none" for no chain. `sealers`: the domains of the seals, the newest first, of a chain that passes."""

    result: Result
    reason: str = ""
    sealers: tuple[str, ...] = ()


def chain(octets: bytes, fields: tuple[Header, ...]) -> tuple[ArcSet, ...]:
    """The sets, the oldest first; none where there is no ARC field. Pure. Raises BadChain."""
    found: dict[bytes, dict[int, Header]] = {_RESULTS: {}, _MESSAGE: {}, _SEAL: {}}
    for field in fields:
        if field.name in found:
            instance = _INSTANCE.search(_text(octets, field))
            if instance is None or int(instance[1]) in found[field.name]:
                raise BadChain("a field has no instance of its own")
            found[field.name][int(instance[1])] = field
    last = len(found[_SEAL])
    if last > MAX_SETS or any(set(each) != set(range(1, last + 1)) for each in found.values()):
        raise BadChain("the sets are not complete")
    sets = tuple(_set(octets, *(found[name][i] for name in (_RESULTS, _MESSAGE, _SEAL))) for i in range(1, last + 1))
    for i, each in enumerate(sets, 1):
        # RFC 8617 5.2 step 3: the first says "none", all others that they found the chain intact.
        if each.sealed.cv != ("none" if i == 1 else "pass"):
            raise BadChain(f"seal {i} says cv={each.sealed.cv}")
    return sets


def verify(
    octets: bytes,
    fields: tuple[Header, ...],
    bodies: Bodies,
    sets: Sequence[ArcSet],
    keys: Mapping[str, Key | dkim.Outcome],
) -> Outcome:
    """Whether the newest message signature and every seal stand (RFC 8617 5.2). Pure; blocks for hash and keys."""
    if not sets:
        return Outcome(Result.NONE)
    newest = sets[-1]
    try:
        found = _usable(keys[newest.signature.key_name])
        if not dkim.stands(octets, fields, bodies, newest.message, newest.signature, found):
            raise BadChain(f"message signature {len(sets)} does not match")
        over = b""
        for i, each in enumerate(sets, 1):
            over += _relaxed(octets, each.results) + _relaxed(octets, each.message)
            last = covered.unsigned(octets, each.seal, "relaxed")
            found = _usable(keys[each.sealed.key_name])
            if not key.verifies(found, each.sealed.algorithm, each.sealed.signed, over + last):
                raise BadChain(f"seal {i} does not match")
            over += _relaxed(octets, each.seal)
    except _NoKey as missing:
        # RFC 8617 5.2 knows pass and fail only, yet a key that cannot be had now says nothing.
        result = Result.TEMPERROR if missing.outcome.result is Result.TEMPERROR else Result.FAIL
        return Outcome(result, missing.outcome.reason)
    except (BadChain, BadKey) as error:
        return Outcome(Result.FAIL, str(error))
    return Outcome(Result.PASS, f"i={len(sets)}", tuple(each.sealed.domain for each in reversed(sets)))


def vouched(octets: bytes, sets: Sequence[ArcSet], trusted: Collection[str], author: str) -> str:
    """The trusted sealer that saw DMARC pass for the domain `author`, in a chain that passes; empty: none did.

    Only what was seen while everybody since is trusted counts: who is not could have made up all before.
    """
    for each in reversed(sets):
        if each.sealed.domain not in trusted:
            return ""
        seen = _said(_text(octets, each.results))
        for passed in _DMARC_PASS.finditer(seen):
            named = _FROM.search(passed[1])
            if named is None or named[1].lower().rpartition("@")[2] == author:
                return each.sealed.domain
    return ""


def _said(results: str) -> str:
    """Results without comments and quoted strings, in which a stranger may have had words of his own written.

    A quoted domain is kept: some write header.from so.
    """
    kept: list[str] = []
    depth, quoted, escaped = 0, -1, False
    for at, c in enumerate(results):
        if escaped:
            escaped = False
        elif c == "\\":
            escaped = depth > 0 or quoted >= 0
        elif quoted >= 0:
            if c == '"':
                within, quoted = results[quoted + 1 : at], -1
                kept.append(within if _PLAIN.fullmatch(within) else "?")
        elif depth or c == "(":
            depth += (c == "(") - (c == ")")
        elif c == '"':
            quoted = at
        else:
            kept.append(c)
    return "".join(kept)


class _NoKey(Exception):
    def __init__(self, outcome: dkim.Outcome) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


def _usable(found: Key | dkim.Outcome) -> Key:
    if isinstance(found, dkim.Outcome):
        raise _NoKey(found)
    return found


def _set(octets: bytes, results: Header, message: Header, seal: Header) -> ArcSet:
    try:
        signed = signature.parse(_text(octets, message), arc=True)
        said = tags.parse(_text(octets, seal))
        if "h" in said:
            raise BadChain("a seal names fields")  # RFC 8617 4.1.3
        sealed = Seal(
            signature.algorithm(said),
            signature.octets(said, "b"),
            signature.named(said, "d"),
            signature.named(said, "s"),
            said.get("cv", "").lower(),
        )
    except (BadSignature, BadTags) as error:
        raise BadChain(str(error)) from error
    return ArcSet(results, message, seal, signed, sealed)


def _text(octets: bytes, field: Header) -> str:
    return value_of(octets, field).decode("utf-8", "replace")


def _relaxed(octets: bytes, field: Header) -> bytes:
    return covered.header(octets, field, "relaxed")
