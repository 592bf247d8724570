"""ARC sets for mail that is forwarded (RFC 8617). Pure.

What our own filter found stands in `Authentication-Results` of our name in front of the message; forged ones were
taken out at the door. The set repeats it and says, by its cv=, what became of the sets before.
"""

from __future__ import annotations

import re
from datetime import datetime

from services.core.dkim.canonical import relaxed
from services.core.dkim.keys import SigningKey
from services.core.mime.headers import header_end
from services.mxrouter.signature import SIGNED, Fields, algorithm, body_hash, chosen, fields_of, signed

_RESULTS, _MESSAGE, _SEAL = "ARC-Authentication-Results", "ARC-Message-Signature", "ARC-Seal"
_SETS = ("arc-authentication-results", "arc-message-signature", "arc-seal")  # RFC 8617 5.1.1: in this order
_READ = (*SIGNED, "dkim-signature", "authentication-results", *_SETS)
_LONGEST = 50  # RFC 8617 4.2.1
_LINE = 76

_INSTANCE = re.compile(rb"(?:^[^:]*:|;)[ \t]*i[ \t]*=[ \t]*(\d{1,2})[ \t]*(?:;|\Z)")
_STATUS = re.compile(rb";[ \t]*cv[ \t]*=[ \t]*(none|pass|fail)\b", re.I)
# RFC 8601 2.2, as our filter writes it: our name, perhaps a version, the results.
_OURS = re.compile(rb'authentication-results:[ \t]*"?([^\s;"()]+)"?(?:[ \t]+\d+)?[ \t]*;[ \t]*(.*)', re.S)
# What strangers wrote may be told in comments and quotes; it is no result.
_ASIDE = re.compile(rb'\([^()]*\)|"(?:[^"\\]|\\.)*"')
_ARC = re.compile(rb"(?:^|;)[ \t]*arc[ \t]*=[ \t]*(none|pass|fail)\b", re.I)


def seal(octets: bytes, key: SigningKey, host: str, now: datetime) -> bytes:
    """The three lines of our set, to stand in front of the message; empty where there is nothing to be said.

    `key` is an RSA key, the kind that every verifier of ARC knows; `host` our name in Authentication-Results. There is
    no set without results of ours, none that claims more of an older chain than they do, and none on top of a chain
    that is known to be broken (RFC 8617 5.1).
    """
    end = header_end(octets, 0, len(octets))
    fields = fields_of(octets, end, _READ)
    results = _results(fields, host)
    sets = _sets(fields)
    newest = max(sets, default=0)
    status = _chain(sets, _ARC.findall(_ASIDE.sub(b"", b";".join(results))))
    if not results or status is None or newest >= _LONGEST:
        return b""
    instance = ("i", str(newest + 1))
    by = (("a", algorithm(key)), ("d", key.domain), ("s", key.selector), ("t", str(int(now.timestamp()))))
    aar = _repeated(newest + 1, host, results)
    names, covered = chosen(fields, ("dkim-signature",))
    ams = signed(
        _MESSAGE,
        (instance, *by, ("c", "relaxed/relaxed"), ("h", ":".join(names)), ("bh", body_hash(octets, end))),
        covered,
        key,
    )
    # RFC 8617 5.1.2: over a broken chain the seal covers its own set alone.
    before = [sets[i][name] for i in sorted(sets) for name in _SETS] if status == "pass" else []
    scope = b"".join([*before, _canonical(aar), _canonical(ams)])
    return signed(_SEAL, (instance, ("cv", status), *by), scope, key) + ams + aar


def _repeated(instance: int, host: str, results: list[bytes]) -> bytes:
    """Our results as a field of the set, folded at white space alone, so that they stay what they are."""
    lines, line = [], f"{_RESULTS}: i={instance}; {host};".encode()
    for word in b"; ".join(results).split(b" "):
        if len(line) + len(word) >= _LINE:
            lines.append(line)
            line = b""
        line += b" " + word
    return b"\r\n".join([*lines, line]) + b"\r\n"


def _canonical(field: bytes) -> bytes:
    name, _, value = field.partition(b":")
    return relaxed(name.lower(), value)


def _results(fields: Fields, host: str) -> list[bytes]:
    """What our own fields report, one text for each."""
    found = (_OURS.match(field.rstrip()) for field in fields.get("authentication-results", ()))
    return [m[2].rstrip(b"; ") for m in found if m and m[1].lower() == host.lower().encode() and m[2].strip(b"; ")]


def _sets(fields: Fields) -> dict[int, dict[str, bytes]]:
    """The sets that the message has, by instance: whatever says a number, whole or not."""
    found: dict[int, dict[str, bytes]] = {}
    for name in _SETS:
        for field in fields.get(name, ()):
            if match := _INSTANCE.search(field.rstrip()):
                found.setdefault(int(match[1]), {})[name] = field
    return found


def _chain(sets: dict[int, dict[str, bytes]], found: list[bytes]) -> str | None:
    """The cv= to be said of the sets before ours; None where none can be said or nobody may go on."""
    if not sets:
        return "none"
    verdicts = {each.lower().decode() for each in found} - {"none"}
    if len(verdicts) != 1:
        return None  # nobody has looked at the chain, or it is not known what they found
    status = verdicts.pop()
    said = _STATUS.search(sets[max(sets)].get("arc-seal", b""))
    if status == "fail":
        # RFC 8617 5.1: a chain is broken once; whoever comes later adds nothing.
        return None if said and said[1].lower() == b"fail" else "fail"
    whole = sorted(sets) == list(range(1, len(sets) + 1)) and all(len(each) == len(_SETS) for each in sets.values())
    return "pass" if whole else "fail"
