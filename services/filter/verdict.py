"""From findings to a verdict. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import NamedTuple

from services.contracts.v1 import mail_pb2 as pb
from services.core.settings import BadSettings, Filter
from services.filter.engine import PASSED_OVER, TOO_BIG, Finding

Action = pb.Verdict.Action


@dataclass(frozen=True, slots=True)
class Rule:
    """What a symbol means for the message; `text` may hold {detail}."""

    action: pb.Verdict.Action.ValueType
    code: int = 0
    enhanced: str = ""
    text: str = ""


_SPAM = Rule(Action.REJECT, 554, "5.7.1", "Message refused: it looks like spam")
_JUNK = Rule(Action.JUNK)
_ACCEPT = Rule(Action.ACCEPT)

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "ATTACHMENT_TYPE": Rule(Action.REJECT, 550, "5.7.1", "Message refused: attachment type not allowed ({detail})"),
        "ARCHIVE_LIMIT": Rule(Action.REJECT, 550, "5.7.1", "Message refused: archive cannot be examined ({detail})"),
        "MESSAGE_SHAPE": Rule(Action.REJECT, 554, "5.6.0", "Message refused: malformed, {detail}"),
        TOO_BIG: Rule(Action.REJECT, 552, "5.3.4", "Message refused: too big to be examined"),
        "JUDGED_CLEAN": _ACCEPT,
        "JUDGED_JUNK": _JUNK,
        "JUDGED_SPAM": _SPAM,
        "JUDGED_LATER": Rule(Action.TEMPFAIL, 451, "4.7.1", "The message is not taken now, try again later ({detail})"),
    }
)
_VIRUS = Rule(Action.REJECT, 554, "5.7.1", "Message refused: virus found ({detail})")
_SUSPECT = Rule(Action.QUARANTINE, 550, "5.7.1", "Message refused: it looks like spam")
_FAULT = Rule(Action.TEMPFAIL, 451, "4.7.1", "The message could not be examined now, try again later ({detail})")
# The most serious first: what is certain to be refused is refused, whether or not another engine could answer.
_GRAVITY = (Action.REJECT, Action.TEMPFAIL, Action.QUARANTINE, Action.JUNK, Action.ACCEPT)


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator decides. A symbol without a rule is told and scored, and does nothing else."""

    junk_score: float = 6.0
    hold_score: float = 12.0
    reject_score: float = 15.0
    rules: Mapping[str, Rule] = field(default_factory=lambda: RULES)
    virus: Rule = _VIRUS
    spam: Rule = _SPAM


def policy_of(settings: Filter, more: Mapping[str, Rule] = MappingProxyType({})) -> Policy:
    """The operator's policy: what `settings.hold` names is held for review where its rule would refuse it.

    `more`: rules of engines whose symbols mean what the operator wants them to. Raises BadSettings for a symbol that no
    rule refuses, and for scores that are out of order.
    """
    rules = {**RULES, **more}
    refusing = {_named(symbol) for symbol, rule in rules.items() if rule.action == Action.REJECT} | {"VIRUS", "SPAM"}
    if unknown := sorted(set(settings.hold) - refusing):
        raise BadSettings(f"filter.hold: {', '.join(unknown)}: expected some of {', '.join(sorted(refusing))}")
    if not settings.junk_score <= settings.hold_score <= settings.reject_score:
        raise BadSettings("filter: expected junk_score <= hold_score <= reject_score")

    def held(symbol: str, rule: Rule) -> Rule:
        # The words stay: what the sender hears is a refusal all the same, and that a person will look.
        if _named(symbol) not in settings.hold:
            return rule
        return replace(rule, action=Action.QUARANTINE, code=550, enhanced="5.7.1")

    return Policy(
        settings.junk_score,
        settings.hold_score,
        settings.reject_score,
        {symbol: held(symbol, rule) for symbol, rule in rules.items()},
        virus=held("VIRUS", _VIRUS),
        spam=held("SPAM", _SPAM),
    )


def _named(symbol: str) -> str:
    """What the operator calls it: spam is spam, whoever has weighed it."""
    return "SPAM" if symbol == "JUDGED_SPAM" else symbol


class _Said(NamedTuple):
    """What decides: the rule, what its text tells, and the kind of finding it is about."""

    rule: Rule
    detail: str = ""
    kind: str = ""


def settled(findings: Sequence[Finding], policy: Policy) -> bool:
    """Whether no further finding could let the message pass now."""
    return bool(findings) and _worst(findings, policy).rule.action in (Action.REJECT, Action.TEMPFAIL)


def decide(findings: Sequence[Finding], policy: Policy) -> pb.Verdict:
    """The verdict: virus before policy before fault before score. Its reply and headers quote only printable ASCII."""
    if not findings:
        return pb.Verdict(action=Action.ACCEPT)
    rule, detail, kind = _worst(findings, policy)
    score = sum(finding.score for finding in findings)
    refused = rule.action in (Action.REJECT, Action.TEMPFAIL)
    return pb.Verdict(
        action=rule.action,
        code=rule.code,
        enhanced=rule.enhanced,
        text=rule.text.format(detail=_printable(detail, 120)),
        headers=b"" if refused else _engines(findings) + _headers(findings, score, rule, policy),
        findings=[_told(finding) for finding in findings],
        score=score,
        kind=kind,
    )


def _worst(findings: Sequence[Finding], policy: Policy) -> _Said:
    virus = fault = None
    score = 0.0
    judges = {finding.engine for finding in findings if finding.required}
    ruled = _Said(_ACCEPT)
    for finding in findings:
        score += 0.0 if finding.engine in judges else finding.score
        if finding.kind == "virus":
            virus = virus or finding
        elif finding.kind == "fault":
            fault = fault or (finding if finding.symbol != PASSED_OVER else None)
        elif (rule := policy.rules.get(finding.symbol)) is not None:
            ruled = _graver(ruled, _Said(rule, finding.detail, finding.kind))
    if virus is not None:
        # First in the order, so that of two refusals it is the one that is named.
        ruled = _graver(_Said(policy.virus, virus.symbol, "virus"), ruled)
    if fault is not None:
        ruled = _graver(ruled, _Said(_FAULT, fault.engine, "fault"))
    ruled = _graver(ruled, _Said(_by_score(score, policy), kind="spam"))
    # Of what is junk, the worst is held; the score of an engine that judges by itself counts for that as well.
    worst = policy.hold_score <= sum(finding.score for finding in findings) < policy.reject_score
    return _Said(_SUSPECT, kind="spam") if worst and ruled.rule.action == Action.JUNK else ruled


def _by_score(score: float, policy: Policy) -> Rule:
    if score >= policy.reject_score:
        return policy.spam
    return _JUNK if score >= policy.junk_score else _ACCEPT


def _graver(one: _Said, other: _Said) -> _Said:
    return min(one, other, key=lambda each: _GRAVITY.index(each.rule.action))


def _engines(findings: Sequence[Finding]) -> bytes:
    return b"".join(finding.headers for finding in findings)


def _headers(findings: Sequence[Finding], score: float, rule: Rule, policy: Policy) -> bytes:
    """What the reader of the message is told: nothing where nothing was found."""
    lines = []
    if any(finding.kind == "spam" for finding in findings):
        junk = rule.action == Action.JUNK
        if junk:
            lines.append("X-Spam-Flag: YES\r\n")
        lines.append(f"X-Spam-Score: {score:.1f}\r\n")
        tests = [_token(finding.symbol) for finding in findings if finding.kind == "spam" and not finding.required]
        required = min((finding.required for finding in findings if finding.required), default=policy.junk_score)
        status = f"{'Yes' if junk else 'No'}, score={score:.1f} required={required:.1f}"
        lines.append(_folded("X-Spam-Status", status + " tests=" + (",".join(tests[:50]) or "none")))
    if passed := [_token(finding.engine) for finding in findings if finding.symbol == PASSED_OVER]:
        lines.append(_folded("X-Posta-Not-Examined-By", ", ".join(dict.fromkeys(passed))))
    return "".join(lines).encode("ascii")


def _folded(name: str, value: str) -> str:
    """One field of lines below 78 characters where a space or comma lets them (RFC 5322 2.1.1, 2.2.3)."""
    lines, line = [], f"{name}:"
    for word in value.replace(",", ", ").split():
        if len(line) + 1 + len(word) > 77:
            lines.append(line)
            line = ""
        line += f" {word}"
    return "\r\n".join([*lines, line]) + "\r\n"


def _told(finding: Finding) -> pb.Finding:
    return pb.Finding(
        engine=finding.engine,
        symbol=_printable(finding.symbol, 200),
        kind=finding.kind,
        score=finding.score,
        detail=_printable(finding.detail, 500),
    )


def _token(text: str) -> str:
    """A word that no header or list can be broken with: engines far away choose their symbols themselves."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-.") else "_" for c in text[:100])


def _printable(text: str, limit: int) -> str:
    # RFC 5321 4.2: a reply text is ASCII, and a peer without SMTPUTF8 must be able to read it.
    shown = text if len(text) <= limit else text[: limit - 3] + "..."
    return "".join(c if " " <= c <= "~" else "?" for c in shown)
