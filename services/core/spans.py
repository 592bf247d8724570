"""The steps of a message's way as spans of one trace, for whoever wants to see them side by side.

The door begins a trace with each message; its context rides in every Envelope and lies in the spool, so that a step
belongs to it however much later it is taken. Where no trace is exported, or this one was not chosen, a step costs one
comparison and the context travels on as it came.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from services.core.telemetry import Trace, new_trace, parse_trace

Facts = Mapping[str, str | int | float]
NONE: Facts = {}


class Span(NamedTuple):
    """A step that is over. `parent`: the id of the span it follows; empty for the one that began the trace."""

    name: str
    trace: Trace
    parent: str
    began_ns: int
    ended_ns: int
    facts: Facts


class Spans:
    """Where one process's steps go: to `keep`, or nowhere."""

    __slots__ = ("_chance", "_keep", "_share")

    def __init__(
        self,
        keep: Callable[[Span], None] | None = None,
        share: float = 1.0,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`share`: of the messages that come in here, how many are traced; the door's choice holds all the way."""
        self._keep, self._share, self._chance = keep, share, chance

    @property
    def on(self) -> bool:
        """Whether steps are kept at all."""
        return self._keep is not None

    def begin(self) -> Trace:
        """The trace of a message that has just come."""
        return new_trace()._replace(sampled=self.on and self._chance() < self._share)

    def now(self) -> int:
        """When a step begins, to be handed back at its end."""
        return time.time_ns() if self._keep is not None else 0

    def first(self, traceparent: str, name: str, began_ns: int, facts: Facts = NONE) -> None:
        """The step that `traceparent` itself stands for is over."""
        if self._keep is not None and (trace := parse_trace(traceparent)) is not None and trace.sampled:
            self._keep(Span(name, trace, "", began_ns, time.time_ns(), facts))

    def step(self, traceparent: str, name: str, began_ns: int, facts: Facts = NONE) -> str:
        """A step of that trace is over; the context for what follows from it."""
        if self._keep is None or (trace := parse_trace(traceparent)) is None or not trace.sampled:
            return traceparent
        own = trace.child()
        self._keep(Span(name, own, trace.span_id, began_ns, time.time_ns(), facts))
        return own.traceparent

    def exemplar(self, traceparent: str) -> dict[str, str] | None:
        """What leads from a figure to a trace that is kept; None where there is none."""
        if self._keep is None or (trace := parse_trace(traceparent)) is None or not trace.sampled:
            return None
        return {"trace_id": trace.trace_id}


OFF = Spans()
