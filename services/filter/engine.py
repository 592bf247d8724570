"""What an engine is, and what it may find."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from services.filter.examined import Examined

Kind = Literal["virus", "spam", "policy", "fault"]

# Symbols of kind "fault", given by the pipeline.
FAULT = "ENGINE_FAULT"
PASSED_OVER = "ENGINE_PASSED_OVER"
# Of kind "policy", given by engines with a limit: it will be too big tomorrow as well.
TOO_BIG = "TOO_BIG_TO_EXAMINE"


class Stage(IntEnum):
    """Stages run in this order, the engines of one stage side by side; what a stage settles spares the later ones."""

    CONTENT = 1
    """What the message carries: virus, attachments, shape."""
    ORIGIN = 2
    """Whether it comes from whom it says."""
    JUDGEMENT = 3
    """How it looks on the whole, given everything found before."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that an engine noticed. `score` adds to the spam score; `detail` may quote the message.

    `headers`: whole fields with CRLF, in ASCII, for the message if it is kept. `required`: with this finding the engine
    judges the message itself, by all it found; from that score on it calls a message spam. Its scores are then told and
    not weighed a second time.
    """

    engine: str
    symbol: str
    kind: Kind
    score: float = 0.0
    detail: str = ""
    headers: bytes = b""
    required: float = 0.0


@dataclass(frozen=True, slots=True)
class Engine:
    """A plug-in of the pipeline.

    `examine` returns what it finds and raises whatever goes wrong: the pipeline turns that into a finding of kind
    "fault". An awaitable is cancelled when `deadline_s` has passed. An engine that can tell at once returns its
    findings as they are: tasks for two such engines took 170 us of a scan of 270 us.
    """

    name: str
    stage: Stage
    deadline_s: float
    examine: Callable[[Examined], Sequence[Finding] | Awaitable[Sequence[Finding]]]
    required: bool = True
