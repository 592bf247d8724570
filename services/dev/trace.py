"""`posta trace`: where is my mail? Read from the TRACE stream."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from services.core import journeys as known
from services.core.bus import BusUnavailable
from services.core.journeys import MESSAGES, Journey
from services.dev.quiet import bus_at
from services.dev.status import console
from services.dev.trouble import Trouble

if TYPE_CHECKING:
    from rich.table import Table


async def journeys(nats_url: str, what: str, limit: int = MESSAGES) -> list[Journey]:
    """The newest `limit` messages that `what` means, oldest first. Raises Trouble where NATS is away."""
    try:
        async with bus_at(nats_url) as bus:
            return await known.journeys(bus, what, limit)
    except BusUnavailable as error:
        raise Trouble(f"the trace cannot be read: {error}") from None


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
