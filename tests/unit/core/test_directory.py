"""Where addresses lead, what is remembered of it, and what happens when Postgres cannot be asked."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable

import pytest
from google.protobuf.message import Message
from sqlalchemy import event

from services.core import directory
from services.core.address import parse
from services.core.directory import Directory, Expanded, Local, Remote, Suspended, Unknown
from services.core.ids import AccountId
from services.core.store import accounts
from services.core.store.engine import Store, StoreUnavailable


class Hints:
    """A bus that only carries hints, at once and within this process."""

    def __init__(self) -> None:
        self.handlers: dict[str, list[Callable[[Message], object]]] = defaultdict(list)

    async def subscribe_hint(
        self, subject: str, cls: type[Message], handler: Callable[[Message], Awaitable[None] | None]
    ) -> object:
        self.handlers[subject].append(handler)
        return None

    def publish_hint(self, subject: str, message: Message) -> bool:
        for handler in self.handlers[subject]:
            handler(message)
        return True


@pytest.fixture
def hints() -> Hints:
    return Hints()


@pytest.fixture
async def book(store: Store, hints: Hints) -> Directory:
    made = Directory(store, hints)
    await made.start()
    return made


class Statements(list[str]):
    """Every statement that goes to Postgres, and a bell that rings at the next one."""

    def __init__(self) -> None:
        super().__init__()
        self.bell = asyncio.Event()

    def take(self, _conn: object, _cursor: object, statement: str, *_rest: object) -> None:
        self.append(statement)
        self.bell.set()

    def clear(self) -> None:
        super().clear()
        self.bell.clear()


@pytest.fixture
async def statements(store: Store) -> Statements:
    seen = Statements()
    event.listen(store._engine.sync_engine, "before_cursor_execute", seen.take)
    return seen


@pytest.fixture
async def people(store: Store) -> dict[str, Local]:
    """Two domains, alice and bob in one, and "bob+sales" which is alice's."""
    async with store.begin("test") as conn:
        await accounts.create_domain(conn, "Posta.TEST")
        await accounts.create_domain(conn, "other.test")
        ids = {name: await accounts.create(conn, f"{name}@posta.test", quota_octets=1000) for name in ("alice", "bob")}
        await accounts.add_address(conn, ids["alice"], "bob+sales@posta.test")
    return {name: Local(number, f"{name}@posta.test", 1000) for name, number in ids.items()}


async def _alias(store: Store, address: str, *targets: str) -> None:
    async with store.begin("test") as conn:
        await accounts.add_alias(conn, address, targets)


async def test_an_address_is_tried_whole_then_without_its_subaddress(book: Directory, people: dict[str, Local]) -> None:
    for text in ("bob@posta.test", "BOB@Posta.Test", '"bob"@posta.test', "bob+x@posta.test", "bob+a+b@posta.test"):
        assert await book.resolve(parse(text)) == people["bob"]
    assert await book.resolve(parse("Bob+Sales@posta.test")) == people["alice"]
    assert await book.resolve(parse("carol@posta.test")) == Unknown()
    assert await book.resolve(parse("+bob@posta.test")) == Unknown()
    assert await book.resolve(parse("bob@example.org")) == Remote(parse("bob@example.org"))
    assert await book.resolve(parse("bob@[192.0.2.1]")) == Remote(parse("bob@[192.0.2.1]"))


async def test_the_catch_all_takes_what_nobody_else_has(
    store: Store, book: Directory, people: dict[str, Local]
) -> None:
    await _alias(store, "@posta.test", "alice@posta.test")
    assert await book.resolve(parse("bob+x@posta.test")) == people["bob"]
    assert await book.resolve(parse("anything+x@posta.test")) == Expanded((people["alice"],))
    assert await book.resolve(parse("anything@other.test")) == Unknown()
    assert await book.may_send_as(people["alice"].account_id, parse("anything@posta.test"))
    assert not await book.may_send_as(people["alice"].account_id, parse("bob@posta.test"))


async def test_aliases_are_followed_across_domains_and_told_once(
    store: Store, book: Directory, people: dict[str, Local]
) -> None:
    await _alias(store, "all@posta.test", "alice@posta.test", "team@other.test", "Far.Away@Example.ORG")
    await _alias(store, "team@other.test", "bob+team@posta.test", "alice@posta.test", "gone@other.test")
    resolved = await book.resolve(parse("all+announce@posta.test"))
    assert isinstance(resolved, Expanded)
    assert set(resolved.targets) == {people["alice"], people["bob"], Remote(parse("Far.Away@example.org"))}
    assert len(resolved.targets) == 3


async def test_aliases_never_run_round_and_end_somewhere(
    store: Store, book: Directory, people: dict[str, Local]
) -> None:
    await _alias(store, "self@posta.test", "self@posta.test")
    await _alias(store, "ring0@posta.test", "ring1@posta.test")
    await _alias(store, "ring1@posta.test", "ring0@posta.test", "bob@posta.test")
    for n in range(12):
        await _alias(store, f"deep{n}@posta.test", f"deep{n + 1}@posta.test")
    await _alias(store, "deep12@posta.test", "bob@posta.test")
    assert await book.resolve(parse("self@posta.test")) == Unknown()
    assert await book.resolve(parse("ring0@posta.test")) == Expanded((people["bob"],))
    assert await book.resolve(parse("deep3@posta.test")) == Expanded((people["bob"],))
    assert await book.resolve(parse("deep2@posta.test")) == Unknown()


async def test_a_suspended_account_has_its_own_answer(store: Store, book: Directory, people: dict[str, Local]) -> None:
    await _alias(store, "both@posta.test", "alice@posta.test", "bob@posta.test")
    await _alias(store, "one@posta.test", "bob@posta.test")
    async with store.begin("test") as conn:
        await accounts.suspend(conn, people["bob"].account_id)
    assert await book.resolve(parse("bob+x@posta.test")) == Suspended("bob@posta.test")
    assert await book.resolve(parse("one@posta.test")) == Suspended("bob@posta.test")
    assert await book.resolve(parse("both@posta.test")) == Expanded((people["alice"],))


async def test_a_login_may_send_as_what_would_reach_it_alone(
    store: Store, book: Directory, people: dict[str, Local]
) -> None:
    alice = people["alice"].account_id
    await _alias(store, "wonder@other.test", "alice@posta.test")
    await _alias(store, "land@other.test", "wonder@other.test")
    await _alias(store, "shared@other.test", "alice@posta.test", "bob@posta.test")
    await _alias(store, "away@other.test", "alice@example.org")
    own = {"alice@posta.test", "bob+sales@posta.test", "wonder@other.test", "land@other.test"}
    assert await book.owned_by(alice) == own
    for text in (*own, "alice+x@posta.test", "wonder+x@other.test"):
        assert await book.may_send_as(alice, parse(text)), text
    for text in ("bob@posta.test", "shared@other.test", "away@other.test", "nobody@posta.test", "alice@example.org"):
        assert not await book.may_send_as(alice, parse(text)), text


async def test_a_change_is_heard_of_and_an_old_answer_is_not_kept_after_it(
    store: Store, book: Directory, hints: Hints, people: dict[str, Local], statements: Statements
) -> None:
    carol = parse("carol@posta.test")
    assert await book.resolve(carol) == Unknown()
    statements.clear()
    assert await book.resolve(carol) == Unknown()
    assert statements == []
    async with store.begin("test") as conn:
        await accounts.create(conn, "carol@posta.test")
    statements.clear()
    asked = asyncio.create_task(book.resolve(parse("Dave@posta.test")))
    await statements.bell.wait()
    await directory.announce(hints, domain="posta.test")
    assert isinstance(await book.resolve(carol), Local)
    await asked
    statements.clear()
    await book.resolve(parse("Dave@posta.test"))
    assert statements


async def test_a_domain_of_others_is_asked_for_once_until_it_is_ours(
    store: Store, book: Directory, hints: Hints, people: dict[str, Local], statements: Statements
) -> None:
    statements.clear()
    for name in ("carol", "dave", "Eve"):
        assert await book.resolve(parse(f"{name}@soon.test")) == Remote(parse(f"{name}@soon.test"))
    assert not await book.owns("soon.test")
    assert len(statements) == 1
    async with store.begin("test") as conn:
        await accounts.create_domain(conn, "soon.test")
        await accounts.create(conn, "carol@soon.test")
    await directory.announce(hints, domain="soon.test")
    assert await book.owns("soon.test")
    assert isinstance(await book.resolve(parse("carol@soon.test")), Local)
    assert await book.resolve(parse("dave@soon.test")) == Unknown()


async def test_many_who_ask_at_once_ask_once(book: Directory, people: dict[str, Local], statements: Statements) -> None:
    statements.clear()
    first = asyncio.create_task(book.resolve(parse("bob@posta.test")))
    others = [asyncio.create_task(book.resolve(parse("bob@posta.test"))) for _ in range(20)]
    await asyncio.sleep(0)
    first.cancel()
    assert set(await asyncio.gather(*others)) == {people["bob"]}
    assert len(statements) == 1


async def test_room_is_what_the_quota_leaves(store: Store, book: Directory, people: dict[str, Local]) -> None:
    async with store.begin("test") as conn:
        await conn.exec_driver_sql("UPDATE account_seq SET used_octets = 400")
        unlimited = await accounts.create(conn, "carol@posta.test")
    assert await book.room(people["bob"].account_id) == 600
    assert await book.room(unlimited) is None
    with pytest.raises(accounts.NoSuchAccount):
        await book.room(AccountId(999))


async def test_without_postgres_what_is_known_is_answered(
    book: Directory, people: dict[str, Local], monkeypatch: pytest.MonkeyPatch
) -> None:
    await book.resolve(parse("bob@posta.test"))
    monkeypatch.setattr(book, "_store", Store("postgresql://posta@127.0.0.1:1/none"))
    assert await book.resolve(parse("bob@posta.test")) == people["bob"]
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await book.resolve(parse("alice@posta.test"))
