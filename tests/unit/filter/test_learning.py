"""Lessons on a real bus and from a real store, to a controller that answers in every way it may."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from services.contracts.v1.mail_pb2 import Lesson
from services.core.bus import Bus, work_learn
from services.core.ids import BlobId
from services.core.settings import Filter
from services.core.store import blobs
from services.core.store.engine import Store
from services.core.telemetry import Metrics, logger
from services.filter.learning import Learning, controllers
from services.filter.servers import NoServer
from tests.unit.filter.engines.test_spam_rspamd import Behaviour, FakeRspamd, Start, hung, raw, says, start
from tests.unit.filter.letters import PLAIN

__all__ = ["start"]


def learning(store: Store, *servers: FakeRspamd, **settings: Any) -> Learning:
    words = tuple(each.word for each in servers)
    filter_settings = Filter(rspamd_controller=words, rspamd_password="s3cret", **settings)
    return Learning(store, controllers(filter_settings), filter_settings, logger("test"), Metrics("filter"))


async def lesson(store: Store, is_spam: bool = True) -> Lesson:
    (blob_id,) = await blobs.stage(store, [PLAIN])
    return Lesson(account_id=7, blob_id=blob_id, spam=is_spam)


@pytest.mark.parametrize(("is_spam", "path"), [(True, "/learnspam"), (False, "/learnham")])
async def test_the_controller_is_given_the_message(store: Store, start: Start, is_spam: bool, path: str) -> None:
    fake = await start(says(success=True))
    assert await learning(store, fake).learn(await lesson(store, is_spam)) == "learned"
    ((line, fields, body),) = fake.asked
    assert (line, body) == (f"POST {path} HTTP/1.1", PLAIN)
    assert ("password", "s3cret") in fields


@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [
        (says("208 Already Reported", error="<one> has been already learned as spam, ignore it"), "known"),
        (raw(b"HTTP/1.1 204 contains less tokens than required\r\n\r\n"), "refused"),
        (says("400 Bad Request", error="not wanted"), "refused"),
    ],
)
async def test_what_is_settled_for_good(store: Store, start: Start, behaviour: Behaviour, outcome: str) -> None:
    assert await learning(store, await start(behaviour)).learn(await lesson(store)) == outcome


@pytest.mark.parametrize(
    "behaviour",
    [
        says("401 Unauthorized", error="Unauthorized"),
        says("500 Internal Server Error", error="Unknown statistics error"),
        says(success=False),
        raw(b""),
    ],
)
async def test_what_may_be_mended_is_tried_again(store: Store, start: Start, behaviour: Behaviour) -> None:
    with pytest.raises(NoServer):
        await learning(store, await start(behaviour)).learn(await lesson(store))


async def test_what_there_is_nothing_to_learn_from(store: Store, start: Start) -> None:
    fake = await start(hung)
    gone = Lesson(account_id=7, blob_id=BlobId(bytes(32)), spam=True)
    assert await learning(store, fake).learn(gone) == "skipped"
    assert await learning(store, fake, rspamd_max_size=10).learn(await lesson(store)) == "skipped"
    assert await learning(store).learn(await lesson(store)) == "skipped"
    assert fake.asked == []


async def test_a_lesson_is_kept_until_a_controller_takes_it(store: Store, bus: Bus, start: Start) -> None:
    fake = await start(says(success=True))
    assert bus.publish_hint(work_learn(), await lesson(store))
    subscription = await learning(store, fake).open(bus)
    await until(lambda: asyncio.sleep(0, bool(fake.asked)))
    await subscription.unsubscribe()


async def test_without_a_controller_none_piles_up(store: Store, bus: Bus) -> None:
    metrics = Metrics("filter")
    subscription = await Learning(store, [], Filter(), logger("test"), metrics).open(bus)
    bus.publish_hint(work_learn(), await lesson(store))

    async def taken() -> bool:
        return b'posta_filter_lessons_total{outcome="skipped"} 1.0' in metrics.exposition()

    async def empty() -> bool:
        info = await bus.api("STREAM.INFO.WORK", {})
        return bool(info["state"]["messages"] == 0)

    await until(taken)
    await until(empty)
    await subscription.unsubscribe()


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """The test's own timeout bounds it."""
    while True:
        if await holds():
            return
        await asyncio.sleep(0.02)
