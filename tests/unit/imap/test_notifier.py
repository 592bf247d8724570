"""The notifier: who is woken by what."""

from collections.abc import Awaitable, Callable

import structlog

from services.contracts.v1.mail_pb2 import Changed
from services.core.ids import AccountId, Fid
from services.core.store.engine import Store
from services.imap.notifier import Notifier

ALICE, BOB = AccountId(1), AccountId(2)
Handler = Callable[[Changed], Awaitable[None] | None]


class Hints:
    """Delivers at once to everybody who listens, the publisher's own process included, as NATS does."""

    def __init__(self) -> None:
        self.listening: dict[str, Handler] = {}
        self.published: list[Changed] = []

    def publish_hint(self, subject: str, message: Changed) -> bool:
        self.published.append(message)
        if subject in self.listening:
            self.listening[subject](message)
        return True

    async def subscribe_hint(self, subject: str, cls: type[Changed], handler: Handler) -> "Listening":
        assert subject not in self.listening, "one subscription per account"
        self.listening[subject] = handler
        return Listening(self, subject)


class Listening:
    def __init__(self, hints: Hints, subject: str) -> None:
        self.hints, self.subject = hints, subject

    async def unsubscribe(self) -> None:
        del self.hints.listening[self.subject]


def notifier(hints: Hints, store: Store) -> Notifier:
    return Notifier(hints, store, structlog.get_logger())


async def test_a_change_wakes_the_sessions_that_look_at_its_folder_and_not_the_one_that_made_it(store: Store) -> None:
    hints, woken = Hints(), []
    notify = notifier(hints, store)
    maker = await notify.watch(ALICE, lambda: woken.append("maker"))
    near = await notify.watch(ALICE, lambda: woken.append("near"))
    far = await notify.watch(ALICE, lambda: woken.append("far"))
    other = await notify.watch(BOB, lambda: woken.append("bob"))
    maker.fid = near.fid = other.fid = Fid(1)
    far.fid = Fid(2)
    notify.tell(ALICE, Fid(1), 7, but=maker)
    # The bus brings our own hint back; it wakes nobody twice.
    assert woken == ["near"]
    assert [(told.account_id, told.fid, told.cn) for told in hints.published] == [(1, 1, 7)]


async def test_hints_of_other_processes_are_believed_in_any_order(store: Store) -> None:
    hints, woken = Hints(), []
    watch = await notifier(hints, store).watch(ALICE, lambda: woken.append(1))
    watch.fid = Fid(1)
    for cn in (9, 8, 8):
        hints.publish_hint("posta.v1.changed.1", Changed(account_id=1, fid=1, cn=cn))
    assert len(woken) == 3


async def test_the_last_to_leave_gives_the_subscription_up(store: Store) -> None:
    hints = Hints()
    notify = notifier(hints, store)
    one, two = await notify.watch(ALICE, lambda: None), await notify.watch(ALICE, lambda: None)
    await one.close()
    assert list(hints.listening) == ["posta.v1.changed.1"]
    await two.close()
    await two.close()
    assert hints.listening == {}
    await notify.watch(ALICE, lambda: None)
    assert list(hints.listening) == ["posta.v1.changed.1"]
