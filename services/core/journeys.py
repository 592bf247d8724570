"""Where is my mail? What the TRACE stream tells of a message, whole or as far as people of some domains may know it.

These are told of messages that they sent or were to get: the steps of the whole message, and those of their own
recipients; of what they handed in, also how it fared with other servers. Of other recipients they learn nothing, by
asking for them neither, nor of anybody elsewhere to whom an alias led: the last of a chain may be somebody else's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from services.contracts.v1.mail_pb2 import TraceEvent
from services.core.bus import Bus
from services.core.subjects import trace
from services.core.telemetry import parse_trace

MESSAGES = 20
_SPOOL_ID = re.compile(r"[0-9a-hjkmnp-tv-z]{26}\Z")
# What the doors and the filter do to a message as a whole; every other step is of the recipients that it names.
_WHOLE = frozenset({"received", "scanned", "accepted", "refused"})
_HANDED_IN, _RELAYED = "submission", "mxrouter"  # the services that take a sender's mail, and hand it on


class Step(NamedTuple):
    """One step of one message. Times are microseconds; `at_us` since the epoch."""

    step: str
    service: str
    host: str
    at_us: int
    took_us: int
    sender: str
    recipient: str
    message_id: str
    detail: str
    findings: tuple[str, ...]


class Journey(NamedTuple):
    """Every step of one message, in the order of time."""

    spool_id: str
    steps: tuple[Step, ...]
    trace_id: str = ""  # as in logs, and in whatever traces are exported to

    @property
    def message_id(self) -> str:
        return next((step.message_id for step in self.steps if step.message_id), "")


class NoSuchJourney(Exception):
    """Nothing is known of that message. The text is its id."""


async def journeys(bus: Bus, what: str, limit: int = MESSAGES, within: Sequence[str] | None = None) -> list[Journey]:
    """The newest `limit` messages that `what` means, oldest first.

    `what`: a spool id, a Message-ID (with or without angle brackets) or an address, as sender or recipient. `within`:
    as people of these domains may know them; None: whole. Raises `BusUnavailable`.
    """
    spools = [what] if _SPOOL_ID.match(what) else await _spools(bus, what.strip("<>").casefold(), limit, within)
    return [found for spool in spools if (found := await _journey(bus, spool, within)).steps]


async def journey(bus: Bus, spool_id: str, within: Sequence[str] | None = None) -> Journey:
    """One message. Raises `NoSuchJourney`, `BusUnavailable`."""
    found = await _journey(bus, spool_id, within) if _SPOOL_ID.match(spool_id) else None
    if found is None or not found.steps:
        raise NoSuchJourney(spool_id)
    return found


async def _spools(bus: Bus, wanted: str, limit: int, within: Sequence[str] | None) -> list[str]:
    """The newest messages with an event that names `wanted`, oldest first."""

    def names(event: TraceEvent) -> bool:
        who = (event.sender, _told(event, within))
        return wanted in (event.message_id.strip("<>").casefold(), *map(str.casefold, who))

    named = {event.envelope.spool_id: None for event in reversed(await bus.read_trace(keep=names))}
    if within is not None:
        # A step that names it may be of a message that is none of theirs, which another step of it tells.
        ours = await bus.read_trace(keep=lambda event: event.envelope.spool_id in named and _concerns(event, within))
        theirs = {event.envelope.spool_id for event in ours}
        named = {spool: None for spool in named if spool in theirs}
    return list(named)[:limit][::-1]


async def _journey(bus: Bus, spool_id: str, within: Sequence[str] | None) -> Journey:
    events = await bus.read_trace(trace(spool_id))
    if within is not None and not any(_concerns(event, within) for event in events):
        return Journey(spool_id, ())
    own = any(event.service == _HANDED_IN and _domain(event.sender) in (within or ()) for event in events)
    steps = (
        Step(
            *(event.step, event.service, event.host, event.at_us, event.took_us),
            *(event.sender, told, event.message_id, event.detail),
            tuple(finding.symbol for finding in event.findings),
        )
        for event in events
        if (told := _told(event, within, own)) or within is None or event.step in _WHOLE
    )
    contexts = (parse_trace(event.envelope.traceparent) for event in events)
    trace_id = next((context.trace_id for context in contexts if context is not None), "")
    return Journey(spool_id, tuple(sorted(steps, key=lambda step: step.at_us)), trace_id)


def _concerns(event: TraceEvent, within: Sequence[str]) -> bool:
    """Whether a sender or recipient of these domains is named."""
    return bool(_told(event, within)) or _domain(event.sender) in within


def _told(event: TraceEvent, within: Sequence[str] | None, own: bool = False) -> str:
    """The event's recipients, as far as they may be known. `own`: the message was handed in by those who ask."""
    if within is None or (own and event.service == _RELAYED and not event.forwarded_by):
        return event.recipient
    return ", ".join(address for address in event.recipient.split(", ") if _domain(address) in within)


def _domain(address: str) -> str:
    return address.rpartition("@")[2].lower()
