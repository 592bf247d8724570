"""Lessons from users, told to rspamd's controllers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

from services.contracts.v1.mail_pb2 import Lesson
from services.core.bus import Bus, Subscription, Work, work_learn
from services.core.endpoint import Endpoint, endpoint
from services.core.ids import BlobId
from services.core.settings import Filter
from services.core.store import blobs
from services.core.store.engine import Store, StoreUnavailable
from services.core.telemetry import Logger, Metrics
from services.filter.http import Answer, post
from services.filter.servers import NoServer, Servers

Outcome = Literal["learned", "known", "refused", "skipped", "given_up"]

_DEFAULT_PORT = 11334
_DEADLINE_S = 30.0
_ACK_WAIT_S = 90.0
_AT_ONCE = 4
_ATTEMPTS = 8
_FIRST_RETRY_S, _LONGEST_RETRY_S = 5.0, 600.0


def controllers(settings: Filter) -> list[Endpoint]:
    """Where rspamd learns, by these settings. Raises BadSettings."""
    key = "POSTA_FILTER_RSPAMD_CONTROLLER"
    return [endpoint(word, _DEFAULT_PORT, key) for word in settings.rspamd_controller]


class Learning:
    """Takes lessons off the bus. Where no controller is configured they are taken and forgotten: none may pile up."""

    def __init__(
        self, store: Store, teachable: Sequence[Endpoint], settings: Filter, log: Logger, metrics: Metrics
    ) -> None:
        self._store, self._log = store, log
        self._controllers = Servers(teachable, _DEADLINE_S) if teachable else None
        self._most = settings.rspamd_max_size
        password = settings.rspamd_password
        self._fields = [(b"Password", password.get_secret_value().encode())] if password else []
        self._lessons = metrics.counter("lessons", "Messages that users moved into or out of Junk.", ["outcome"])

    async def open(self, bus: Bus) -> Subscription:
        """Learn from now on, sharing the lessons with the other filters."""
        return await bus.consume_work(work_learn(), "filter-learn", Lesson, _AT_ONCE, self.serve, _ACK_WAIT_S)

    async def serve(self, works: list[Work[Lesson]]) -> None:
        """Learn what can be learned now, and settle each piece."""
        await asyncio.gather(*map(self._serve, works))

    async def _serve(self, work: Work[Lesson]) -> None:
        lesson = work.message
        try:
            outcome = await self.learn(lesson)
        except (NoServer, StoreUnavailable) as error:
            if work.deliveries < _ATTEMPTS:
                work.nak(min(_FIRST_RETRY_S * 4 ** (work.deliveries - 1), _LONGEST_RETRY_S))
                return
            self._log.error("lesson given up", account=lesson.account_id, reason=str(error))
            outcome = "given_up"
        self._lessons.labels(outcome).inc()
        work.ack()

    async def learn(self, lesson: Lesson) -> Outcome:
        """What became of one lesson. Raises NoServer, StoreUnavailable where it may be tried again."""
        if self._controllers is None:
            return "skipped"
        blob_id = BlobId(lesson.blob_id)
        octets = (await blobs.read(self._store, [blob_id])).get(blob_id)
        if octets is None or len(octets) > self._most:
            return "skipped"
        path = "/learnspam" if lesson.spam else "/learnham"

        async def question(where: Endpoint) -> tuple[Outcome, str]:
            return _outcome(await post(where, path, self._fields, octets))

        outcome, reason = await self._controllers.ask(question)
        self._log.info(outcome, account=lesson.account_id, blob=blob_id.hex(), spam=lesson.spam, reason=reason)
        return outcome


def _outcome(answer: Answer) -> tuple[Outcome, str]:
    """What the controller's answer means. Raises ValueError for what may be mended: by rspamd, or its password."""
    reason = str(answer.value.get("error", "") or answer.reason)[:200]
    if answer.status == 200 and answer.value.get("success") is True:
        return "learned", ""
    if answer.status == 208:
        return "known", reason
    if answer.status in (401, 403) or answer.status >= 500 or answer.status == 200:
        raise ValueError(f"{answer.status} {reason}")
    # Too short to learn from (204), or not wanted by a condition of the classifier.
    return "refused", reason
