"""A house with alice in it, a bus that only carries hints, and a clock that only runs when told."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from google.protobuf.message import Message

from services.core.auth import enroll
from services.core.auth.authenticator import Authenticator
from services.core.auth.passwords import Workers
from services.core.ids import AccountId
from services.core.settings import Login, Settings
from services.core.store import accounts
from services.core.store.engine import Store

PASSWORD = "correct horse"


@dataclass
class Hints:
    """What `Hints` asks for, within one process and at once."""

    handlers: dict[str, list[Callable[[Message], object]]] = field(default_factory=lambda: defaultdict(list))

    async def subscribe_hint(
        self, subject: str, cls: type[Message], handler: Callable[[Message], Awaitable[None] | None]
    ) -> object:
        self.handlers[subject].append(handler)
        return None

    def publish_hint(self, subject: str, message: Message) -> bool:
        for handler in self.handlers[subject]:
            handler(message)
        return True


@dataclass
class Waits:
    """Stands in for sleeping: notes how long, and returns."""

    seconds: list[float] = field(default_factory=list)

    async def __call__(self, delay_s: float) -> None:
        self.seconds.append(delay_s)


@pytest.fixture
def hints() -> Hints:
    return Hints()


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture(scope="session")
def workers() -> Workers:
    return Workers(2)


@pytest.fixture
async def alice(store: Store) -> AccountId:
    async with store.begin("test") as conn:
        await accounts.create_domain(conn, "posta.test")
        account_id = await accounts.create(conn, "alice@posta.test", display_name="Alice")
        await enroll.set_password(conn, account_id, PASSWORD)
    return account_id


@pytest.fixture
async def pod(store: Store, hints: Hints, waits: Waits, workers: Workers) -> Callable[[], Awaitable[Authenticator]]:
    """Another process's authenticator, as many as wanted."""

    async def start() -> Authenticator:
        settings = Settings(login=Login(failures_per_account=3, failures_per_network=6, max_delay_s=8))
        made = Authenticator(store, hints, settings, sleep=waits, workers=workers)
        await made.start()
        return made

    return start
