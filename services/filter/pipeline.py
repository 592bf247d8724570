"""Runs the engines over a message: stage after stage, each engine against its own deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence

from services.core.telemetry import Logger, Metrics
from services.filter.engine import FAULT, PASSED_OVER, Engine, Finding
from services.filter.examined import Examined
from services.filter.verdict import Policy, settled

_BUCKETS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.01, 0.05, 0.25, 1.0, 2.5, 10.0, 30.0)

# A panic in a native engine is no Exception, so everything else is caught by its oldest name.
_NEVER_OURS = (asyncio.CancelledError, KeyboardInterrupt, SystemExit)


class Pipeline:
    """The engines of this process in the order of their stages."""

    def __init__(self, engines: Sequence[Engine], policy: Policy, log: Logger, metrics: Metrics) -> None:
        """Raises ValueError where two engines have one name."""
        if len({engine.name for engine in engines}) != len(engines):
            raise ValueError("two engines of one name")
        self.engines = tuple(sorted(engines, key=lambda engine: engine.stage))
        self._stages = [
            [engine for engine in self.engines if engine.stage == stage]
            for stage in sorted({engine.stage for engine in engines})
        ]
        self._policy, self._log = policy, log
        seconds = metrics.histogram("engine_seconds", "Time an engine took for a message.", ["engine"], _BUCKETS)
        faults = metrics.counter("engine_faults", "Messages that an engine failed to examine.", ["engine"])
        self._seconds = {engine.name: seconds.labels(engine.name) for engine in engines}
        self._faults = {engine.name: faults.labels(engine.name) for engine in engines}

    async def run(self, examined: Examined, deadline: float) -> list[Finding]:
        """Everything found until it is settled that the message cannot pass, or every engine has looked.

        `deadline` is on the loop's clock; an engine that has not answered by then, or by its own deadline, has failed.
        Raises nothing but CancelledError.
        """
        findings: list[Finding] = []
        try:
            for stage in self._stages:
                slow = []
                for engine in stage:
                    found = self._start(engine, examined)
                    if isinstance(found, Awaitable):
                        slow.append(self._finish(engine, found, examined, deadline))
                    else:
                        findings += found
                if len(slow) == 1:
                    findings += await slow[0]
                elif slow:
                    findings += [each for found in await asyncio.gather(*slow) for each in found]
                if settled(findings, self._policy):
                    break
        finally:
            examined.abandoned = True
        return findings

    def _start(self, engine: Engine, examined: Examined) -> Sequence[Finding] | Awaitable[Sequence[Finding]]:
        started = time.perf_counter()
        try:
            found = engine.examine(examined)
        except _NEVER_OURS:
            raise
        except BaseException as error:
            found = self._fault(engine, examined, f"{type(error).__name__}: {error}")
        if not isinstance(found, Awaitable):
            self._seconds[engine.name].observe(time.perf_counter() - started)
        return found

    async def _finish(
        self, engine: Engine, found: Awaitable[Sequence[Finding]], examined: Examined, deadline: float
    ) -> Sequence[Finding]:
        started = time.perf_counter()
        limit = min(deadline, asyncio.get_running_loop().time() + engine.deadline_s)
        try:
            async with asyncio.timeout_at(limit) as timer:
                return await found
        except _NEVER_OURS:
            raise
        except BaseException as error:
            if timer.expired():
                return self._fault(engine, examined, f"no answer within {time.perf_counter() - started:.1f} s")
            return self._fault(engine, examined, f"{type(error).__name__}: {error}")
        finally:
            self._seconds[engine.name].observe(time.perf_counter() - started)

    def _fault(self, engine: Engine, examined: Examined, reason: str) -> list[Finding]:
        self._faults[engine.name].inc()
        self._log.warning(
            "engine failed",
            engine=engine.name,
            required=engine.required,
            reason=reason,
            spool_id=examined.request.envelope.spool_id,
        )
        return [Finding(engine.name, FAULT if engine.required else PASSED_OVER, "fault", detail=reason)]
