"""Which moves teach the filters something, and what is said then."""

from datetime import UTC, datetime
from typing import Any

import pytest

from services.contracts.v1.mail_pb2 import Lesson
from services.core.ids import AccountId, BlobId, Fid
from services.core.store import accounts, blobs, content, folders, messages
from services.core.store.engine import Store
from services.core.store.messages import Placement
from services.core.telemetry import logger
from services.core.training import Teacher, teaches


@pytest.mark.parametrize(
    ("source", "target", "says"),
    [
        ("inbox", "junk", True),
        (None, "junk", True),
        ("trash", "junk", True),
        ("junk", "inbox", False),
        ("junk", None, False),
        ("junk", "archive", False),
        ("junk", "trash", None),
        ("junk", "junk", None),
        ("inbox", "trash", None),
        (None, None, None),
    ],
)
def test_what_a_move_says(source: str | None, target: str | None, says: bool | None) -> None:
    assert teaches(source, target) is says


class Bus:
    def __init__(self, away: bool = False) -> None:
        self.sent: list[tuple[str, Lesson]] = []
        self.away = away

    def publish_hint(self, subject: str, message: Lesson) -> bool:
        self.sent.append((subject, message))
        return not self.away


async def junk_of(store: Store, *texts: bytes) -> tuple[AccountId, Fid, list[int], list[BlobId]]:
    """An account with these messages in Junk."""
    async with store.begin("test.account") as conn:
        await accounts.create_domain(conn, "posta.test")
        account_id = await accounts.create(conn, "bob@posta.test")
        (junk,) = [each.fid for each in await folders.list_folders(conn, account_id) if each.role == "junk"]
    names = await blobs.stage(store, list(texts))
    made: list[Any] = [
        Placement(await content.prepare(name, b"", octets), "junk", datetime.now(UTC))
        for name, octets in zip(names, texts, strict=True)
    ]
    placed = await messages.append(store, account_id, made)
    return account_id, junk, [each.uid for each in placed], names


async def test_each_message_is_one_lesson(store: Store) -> None:
    account_id, junk, uids, names = await junk_of(store, b"A: b\r\n\r\none", b"A: b\r\n\r\ntwo", b"A: b\r\n\r\none")
    bus = Bus()

    await Teacher(store, bus, logger("test")).placed(account_id, ("inbox", "junk"), junk, uids)

    assert {subject for subject, _ in bus.sent} == {"posta.v1.work.learn"}
    lessons = [lesson for _, lesson in bus.sent]
    assert sorted(lesson.blob_id for lesson in lessons) == sorted(set(names))
    assert all((lesson.account_id, lesson.spam) == (account_id, True) for lesson in lessons)


async def test_what_says_nothing_asks_nothing() -> None:
    bus, store = Bus(), Store("postgresql://posta@127.0.0.1:1/nowhere")
    await Teacher(store, bus, logger("test")).placed(AccountId(1), ("junk", "trash"), Fid(2), [3])
    assert bus.sent == []


async def test_no_move_fails_for_a_lesson(store: Store) -> None:
    account_id, junk, uids, _ = await junk_of(store, b"A: b\r\n\r\none")
    await Teacher(store, Bus(away=True), logger("test")).placed(account_id, ("inbox", "junk"), junk, uids)
    away = Store("postgresql://posta@127.0.0.1:1/nowhere")
    await Teacher(away, Bus(), logger("test")).placed(account_id, ("inbox", "junk"), junk, uids)
    await away.close()
