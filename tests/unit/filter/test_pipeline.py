"""Engines that answer, hang, crash and panic, and what the others see of it."""

import asyncio
from collections.abc import Sequence

import pytest

from services.core.telemetry import Metrics, logger
from services.filter.engine import FAULT, PASSED_OVER, Engine, Finding, Stage
from services.filter.examined import Examined
from services.filter.pipeline import Pipeline
from services.filter.verdict import Policy
from tests.unit.filter.letters import PLAIN, examined


class Panic(BaseException):
    """What a native library's panic looks like: no Exception."""


def engine(
    name: str, does: object, stage: Stage = Stage.CONTENT, deadline_s: float = 5, required: bool = True
) -> Engine:
    async def examine(message: Examined) -> Sequence[Finding]:
        if does == "hang":
            await asyncio.Event().wait()
        if isinstance(does, BaseException):
            raise does
        return [does] if isinstance(does, Finding) else []

    return Engine(name, stage, deadline_s, examine, required)


def at_once(name: str, does: object, stage: Stage = Stage.CONTENT) -> Engine:
    def examine(message: Examined) -> Sequence[Finding]:
        if isinstance(does, BaseException):
            raise does
        return [does] if isinstance(does, Finding) else []

    return Engine(name, stage, 5, examine)


async def found(*engines: Engine, within_s: float = 5) -> list[tuple[str, str]]:
    metrics = Metrics("filter")
    pipeline = Pipeline(engines, Policy(), logger("test"), metrics)
    findings = await pipeline.run(examined(PLAIN), asyncio.get_running_loop().time() + within_s)
    faults = sum(each.kind == "fault" for each in findings)
    counted = metrics.exposition().decode().splitlines()
    total = sum(float(line.split()[-1]) for line in counted if line.startswith("posta_filter_engine_faults_total"))
    assert total == faults
    return [(each.engine, each.symbol) for each in findings]


VIRUS = Finding("a", "EICAR-Test-Signature", "virus")
SPAM = Finding("a", "GTUBE", "spam", 10)


@pytest.mark.parametrize("trouble", [ValueError("no"), Panic("native"), TimeoutError("its own"), OSError("gone")])
async def test_a_crash_is_a_finding(trouble: BaseException) -> None:
    assert await found(engine("a", trouble)) == [("a", FAULT)]
    assert await found(at_once("a", trouble)) == [("a", FAULT)]
    assert await found(engine("a", trouble, required=False), engine("b", SPAM)) == [("a", PASSED_OVER), ("a", "GTUBE")]


async def test_a_hanging_engine_ends_with_its_deadline() -> None:
    assert await found(engine("a", "hang", deadline_s=0.02), engine("b", SPAM)) == [("a", FAULT), ("a", "GTUBE")]


async def test_the_request_s_deadline_ends_all_engines() -> None:
    assert await found(engine("a", "hang"), engine("b", "hang"), within_s=0.02) == [("a", FAULT), ("b", FAULT)]


async def test_a_settled_stage_spares_the_later_ones() -> None:
    later = at_once("later", SPAM, Stage.JUDGEMENT)
    assert await found(later, engine("a", VIRUS)) == [("a", "EICAR-Test-Signature")]
    assert await found(later, engine("a", ValueError())) == [("a", FAULT)]
    assert await found(later, engine("b", SPAM)) == [("a", "GTUBE"), ("a", "GTUBE")]
    assert await found(later, engine("b", ValueError(), required=False)) == [("b", PASSED_OVER), ("a", "GTUBE")]


async def test_engines_of_a_stage_run_side_by_side() -> None:
    met = asyncio.Barrier(2)

    async def meet(message: Examined) -> Sequence[Finding]:
        await met.wait()
        return []

    assert await found(Engine("a", Stage.ORIGIN, 2, meet), Engine("b", Stage.ORIGIN, 2, meet)) == []


async def test_cancelling_cancels_the_engines_and_tells_threads() -> None:
    message = examined(PLAIN)
    pipeline = Pipeline([engine("a", "hang")], Policy(), logger("test"), Metrics("filter"))
    running = asyncio.create_task(pipeline.run(message, asyncio.get_running_loop().time() + 60))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert message.abandoned


def test_engines_have_names_of_their_own() -> None:
    with pytest.raises(ValueError, match="one name"):
        Pipeline([at_once("a", None), at_once("a", None)], Policy(), logger("test"), Metrics("filter"))
