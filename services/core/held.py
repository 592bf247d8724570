"""What becomes of a message that the filter wants a person to look at. Pure.

Its sender hears 250 only where every domain it is for says so and it can be told later that nobody released it. Else it
hears 550 in its session, and nothing ever comes after that. So held mail is never dropped in silence, and nobody is
told of mail that he did not send.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from services.contracts.v1.mail_pb2 import Finding, Verdict
from services.core.mime.headers import find, header_end, parse_fields, unfold, value_of
from services.core.mime.words import clean, decode_words
from services.core.store.quarantine import ACCEPT, Policy

# RFC 7208: the reverse-path's own domain says that this client may use it. A DMARC pass is not enough: by DKIM it says
# who wrote the message, and a copy of it may be sent with anybody's reverse-path.
_PROVEN = "SPF_PASS"
_HEADER_LINES = 1000
_TEXT = 300


def tellable(sender: str, by_login: bool, findings: Iterable[Finding]) -> bool:
    """Whether a notice to the reverse-path reaches whoever sent the message, and nobody else."""
    return bool(sender) and (by_login or any(each.symbol == _PROVEN for each in findings))


def accepted(policies: Iterable[Policy], can_be_told: bool) -> bool:
    """Whether the sender hears 250: the strictest of the domains wins, and none named at all is strict."""
    every = list(policies)
    return can_be_told and bool(every) and all(policy.on_held == ACCEPT for policy in every)


def concerned(addresses: Iterable[tuple[str, bool]], login: str) -> set[str]:
    """The domains whose policy counts, of (address, is local) pairs: those of local recipients, and for mail that goes
    out the domain of the login.
    """
    return {
        domain for address, local in addresses if (domain := (address if local else login).rpartition("@")[2].lower())
    }


def plain(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Findings as they are kept."""
    return [
        {"engine": f.engine, "symbol": f.symbol, "kind": f.kind, "score": round(f.score, 3), "detail": f.detail}
        for f in findings
    ]


class Letterhead(NamedTuple):
    """What people know a message by."""

    from_text: str
    subject: str


def letterhead(octets: bytes) -> Letterhead:
    """From and Subject as text of one line; never raises, whatever the octets."""
    fields, _ = parse_fields(octets, 0, header_end(octets, 0, len(octets)), _HEADER_LINES)

    def text(name: bytes) -> str:
        field = find(fields, name)
        decoded = clean(decode_words(unfold(value_of(octets, field)))) if field else ""
        return " ".join("".join(c if c.isprintable() else " " for c in decoded).split())[:_TEXT]

    return Letterhead(text(b"from"), text(b"subject"))


def reason(verdict: Verdict) -> str:
    """Why, for people: the verdict's words without what they say to the sender; the findings where it has none."""
    if verdict.text:
        return verdict.text.removeprefix("Message refused: ")
    deciding = [f"{each.symbol} {each.detail}".strip() for each in verdict.findings if each.kind == verdict.kind]
    return ", ".join(deciding)[:_TEXT] or verdict.kind


def domain_policies(named: Mapping[str, Policy], domains: Iterable[str]) -> list[Policy]:
    """The policy of each domain; a domain that is no longer ours has the default."""
    return [named.get(domain, Policy()) for domain in domains]
