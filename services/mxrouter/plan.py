"""What follows from the outcomes of one attempt, for each recipient and for the sender. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from services.core.dsn import Report, wants_notice
from services.mxrouter.carriage import Fate, Outcome
from services.mxrouter.queue import Claim, Waiting
from services.mxrouter.schedule import Again, GiveUp, Patience, after_failure

_EXPIRED = "4.4.7"  # RFC 3463 3.5: delivery time expired


class Served(NamedTuple):
    """A recipient that is done with, well or badly."""

    recipient: Waiting
    outcome: Outcome


class Later(NamedTuple):
    """A recipient that stays in the queue."""

    recipient: Waiting
    outcome: Outcome
    again: Again


@dataclass(frozen=True, slots=True)
class Plan:
    """Who is done, who fails, who waits, and what the sender is told: reports, those of each action together."""

    sent: tuple[Served, ...]
    failed: tuple[Served, ...]
    later: tuple[Later, ...]
    told: tuple[tuple[Report, ...], ...]


def plan(claim: Claim, outcomes: Sequence[Outcome], now: datetime, patience: Patience, chance: float) -> Plan:
    """Decide. `outcomes`: one for each recipient of the claim, in order."""
    sent: list[Served] = []
    failed: list[Served] = []
    later: list[Later] = []
    reports: list[Report] = []
    for one, outcome in zip(claim.recipients, outcomes, strict=True):
        match outcome.fate:
            case Fate.SENT:
                sent.append(Served(one, outcome))
                # RFC 3461 5.2.2: where the next hop cannot tell of success, handing it on is the last we see of it.
                if not outcome.relayed_dsn:
                    reports.append(_report(one, outcome, "relayed", outcome.enhanced or "2.0.0"))
            case Fate.FAILED:
                failed.append(Served(one, outcome))
                reports.append(_report(one, outcome, "failed", outcome.enhanced or "5.0.0"))
            case Fate.LATER:
                match after_failure(now, claim.received_at, one.notice_at, one.attempts, patience, chance):
                    case GiveUp():
                        failed.append(Served(one, outcome))
                        reports.append(_report(one, outcome, "failed", _EXPIRED))
                    case Again() as again:
                        later.append(Later(one, outcome, again))
                        if again.warn:
                            until = claim.received_at + patience.give_up_after
                            delayed = _report(one, outcome, "delayed", outcome.enhanced or "4.0.0")
                            reports.append(replace(delayed, retry_until=until))
    notify = {one.address: one.notify for one in claim.recipients}
    wanted = [r for r in reports if wants_notice(claim.sender, notify[r.recipient], r.action)]
    actions = dict.fromkeys(report.action for report in wanted)
    told = tuple(tuple(r for r in wanted if r.action == action) for action in actions)
    return Plan(tuple(sent), tuple(failed), tuple(later), told)


def said(outcome: Outcome) -> str:
    """An outcome in one line, as SMTP has it: `450 4.2.0 Greylisted`."""
    return " ".join(filter(None, (str(outcome.code), outcome.enhanced, outcome.text)))


def _report(one: Waiting, outcome: Outcome, action: str, status: str) -> Report:
    return Report(one.address, action, status, said(outcome), one.orcpt, outcome.host or None)
