"""Whether a stranger's mail is taken at all, by what is known at RCPT. Pure over facts.

Said at RCPT and not before, so that the log names the recipient, and that postmaster can be reached by whoever is
refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from services.core.smtp import replies
from services.core.smtp.replies import Reply

# RFC 5321 4.5.1, RFC 2142 4: always reachable.
_ALWAYS = frozenset({"postmaster", "abuse"})
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"(?=.{{4,255}}$)(?:{_LABEL}\.)+[A-Za-z][A-Za-z0-9-]{{0,61}}[A-Za-z0-9]\.?")
_LITERAL = re.compile(r"\[(?:IPv6:)?[0-9A-Fa-f.:]+\]")
_OWN_HOPS = 5  # through us and back, forwarded and forwarded again: no honest way passes here more often
_HOPS = 100  # RFC 5321 6.3: at least 100 hops may be legitimate
_HOP = re.compile(rb"(?im)^received:([^\n]*(?:\n[ \t][^\n]*)*)")
_BY = re.compile(rb"\sby\s+([^\s;()]+)", re.I)


class SenderDomain(Enum):
    """What the DNS says of the domain in MAIL FROM."""

    UNASKED = "unasked"
    TAKES_MAIL = "takes mail"
    TAKES_NONE = "takes none"  # RFC 7505
    UNKNOWN = "unknown"
    NO_ANSWER = "no answer"


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator demands: nothing by default, since much honest mail comes from careless hosts."""

    helo_name: bool = False
    rdns: bool = False
    sender_domain: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one recipient's session. `iprev`: as RFC 8601 has it, empty: not asked."""

    helo: str
    iprev: str
    sender_domain: SenderDomain
    recipient_local: str


def refusal(facts: Facts, rules: Rules, host: str) -> Reply | None:
    """What is said to a recipient's mail that is not taken; `host`: our name, which nobody else has."""
    if facts.recipient_local.lower() in _ALWAYS:
        return None
    if rules.helo_name:
        if facts.helo.rstrip(".").lower() == host.lower():
            return replies.HELO_IS_OURS
        if _NAME.fullmatch(facts.helo) is None and _LITERAL.fullmatch(facts.helo) is None:
            return replies.HELO_NO_NAME
    if rules.rdns:
        if facts.iprev in ("fail", "permerror"):
            return replies.NO_REVERSE_NAME
        if facts.iprev == "temperror":
            return replies.REVERSE_NAME_UNKNOWN
    if rules.sender_domain:
        return _SENDER[facts.sender_domain]
    return None


_SENDER: dict[SenderDomain, Reply | None] = {
    SenderDomain.UNASKED: None,
    SenderDomain.TAKES_MAIL: None,
    SenderDomain.TAKES_NONE: replies.SENDER_TAKES_NO_MAIL,
    SenderDomain.UNKNOWN: replies.SENDER_DOMAIN_UNKNOWN,
    SenderDomain.NO_ANSWER: replies.SENDER_DOMAIN_NO_ANSWER,
}


def goes_round(message: bytes, host: str) -> bool:
    """Whether it has passed too many servers, or too often this one (RFC 5321 6.3)."""
    end = message.find(b"\r\n\r\n")
    hops = _HOP.findall(message, 0, end + 2 if end >= 0 else len(message))
    ours = host.lower().encode()
    own = sum(1 for hop in hops if (by := _BY.search(hop)) is not None and by[1].lower() == ours)
    return len(hops) > _HOPS or own > _OWN_HOPS
