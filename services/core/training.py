"""What users teach the filters: a message they move into Junk is spam, one they take out of it is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from services.contracts.v1.mail_pb2 import Lesson
from services.core.ids import AccountId, Fid
from services.core.store import blobs
from services.core.store.engine import Store, StoreUnavailable
from services.core.subjects import work_learn
from services.core.telemetry import Logger


class Publisher(Protocol):
    """What the teacher asks of the bus."""

    def publish_hint(self, subject: str, message: Lesson) -> bool:
        """Send without waiting; never raises."""


def teaches(source_role: str | None, target_role: str | None) -> bool | None:
    """Whether a placement from a folder of one role into one of another says "spam" or "no spam"; None: neither."""
    if target_role == "junk":
        return True if source_role != "junk" else None
    # Junk thrown away is still junk.
    return False if source_role == "junk" and target_role != "trash" else None


class Teacher:
    """One per process that moves messages. A lesson is worth no wait and no error: with NATS away it is lost."""

    def __init__(self, store: Store, bus: Publisher, log: Logger) -> None:
        self._store, self._bus, self._log = store, bus, log

    async def placed(
        self,
        account_id: AccountId,
        roles: tuple[str | None, str | None],
        into: Fid,
        uids: Sequence[int],
    ) -> None:
        """Pass on what it says that messages from a folder of one role are now `uids` of folder `into` of another.

        To be called after the commit, for a move and for a copy: clients without MOVE copy and expunge. Raises nothing.
        """
        is_spam = teaches(*roles)
        if is_spam is None:
            return
        try:
            found = await blobs.of_messages(self._store, account_id, into, uids)
        except StoreUnavailable as error:
            self._log.warning("lesson lost", account=account_id, reason=str(error))
            return
        # A hint that the WORK stream keeps: stored without our waiting for it, handed out until it is learned.
        sent = [
            self._bus.publish_hint(work_learn(), Lesson(account_id=account_id, blob_id=blob_id, spam=is_spam))
            for blob_id in found
        ]
        if not all(sent):
            self._log.warning("lesson lost", account=account_id, reason="the bus is away")
