"""`posta trace`: where is my mail? Read from the TRACE stream."""

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from services.core.bus import Bus, BusUnavailable
from services.core.subjects import trace
from services.core.telemetry import parse_trace
from services.dev.quiet import bus_at
from services.dev.status import console
from services.dev.trouble import Trouble

if TYPE_CHECKING:
    from rich.table import Table

MESSAGES = 20
_SPOOL_ID = re.compile(r"[0-9a-hjkmnp-tv-z]{26}\Z")


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


async def journeys(nats_url: str, what: str, limit: int = MESSAGES) -> list[Journey]:
    """The newest `limit` messages that `what` means, oldest first.

    `what`: a spool id, a Message-ID (with or without angle brackets) or an address, as sender or recipient. Raises
    Trouble where NATS is away.
    """
    try:
        async with bus_at(nats_url) as bus:
            spools = [what] if _SPOOL_ID.match(what) else await _spools(bus, what.strip("<>").casefold(), limit)
            return [found for spool in spools if (found := await _journey(bus, spool)).steps]
    except BusUnavailable as error:
        raise Trouble(f"the trace cannot be read: {error}") from None


async def _spools(bus: Bus, wanted: str, limit: int) -> list[str]:
    """The newest messages with an event that names `wanted`, oldest first."""
    events = await bus.read_trace(
        keep=lambda event: (
            wanted in (event.message_id.strip("<>").casefold(), event.sender.casefold(), event.recipient.casefold())
        )
    )
    return list(dict.fromkeys(event.envelope.spool_id for event in reversed(events)))[:limit][::-1]


async def _journey(bus: Bus, spool_id: str) -> Journey:
    events = await bus.read_trace(trace(spool_id))
    steps = (
        Step(
            *(event.step, event.service, event.host, event.at_us, event.took_us),
            *(event.sender, event.recipient, event.message_id, event.detail),
            tuple(finding.symbol for finding in event.findings),
        )
        for event in events
    )
    contexts = (parse_trace(event.envelope.traceparent) for event in events)
    trace_id = next((context.trace_id for context in contexts if context is not None), "")
    return Journey(spool_id, tuple(sorted(steps, key=lambda step: step.at_us)), trace_id)


def as_json(found: Sequence[Journey]) -> str:
    """The journeys for scripts: a list of {"spool_id", "message_id", "trace_id", "steps": [...]}."""
    return json.dumps(
        [
            {
                "spool_id": each.spool_id,
                "message_id": each.message_id,
                "trace_id": each.trace_id,
                "steps": [step._asdict() for step in each.steps],
            }
            for each in found
        ],
        indent=1,
    )


def table(journey: Journey) -> "Table":
    """The journey for people: each step, when it ended after the first began, how long it took."""
    from rich.table import Table
    from rich.text import Text

    made = Table("step", "service", "after", "took", "what", title=f"{journey.message_id or journey.spool_id}")
    made.title_justify = "left"
    for column in (2, 3):
        made.columns[column].justify = "right"
    began = min(step.at_us - step.took_us for step in journey.steps)
    for step in journey.steps:
        who = f"{step.sender or '<>'} → {step.recipient}" if step.recipient else step.sender
        words = "  ".join(filter(None, (who, step.detail, " ".join(step.findings))))
        took = _milliseconds(step.took_us) if step.took_us else ""
        # As text: what a sender chose may hold what rich takes for markup.
        cells = (step.step, step.service, _milliseconds(step.at_us - began), took, words)
        made.add_row(*(Text(cell) for cell in cells))
    return made


def _milliseconds(microseconds: int) -> str:
    return f"{microseconds / 1000:.1f} ms"


def show(found: Sequence[Journey]) -> None:
    """Print the journeys as tables."""
    out = console()
    for each in found:
        out.print(table(each))
