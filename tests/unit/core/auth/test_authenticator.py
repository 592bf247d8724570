"""Logins across processes: what is remembered, what is forgotten, who is slowed and who is not."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable
from typing import Protocol

import pytest
from argon2 import PasswordHasher
from sqlalchemy import event

from services.core import directory
from services.core.auth import enroll, passwords, scram
from services.core.auth.authenticator import Authenticator
from services.core.auth.dialogue import authenticate
from services.core.auth.login import (
    AuthFailed,
    AuthThrottled,
    AuthUnavailable,
    Cancelled,
    Client,
    ExchangeBroken,
    Login,
    MechanismUnknown,
    network_of,
)
from services.core.ids import AccountId
from services.core.settings import Settings
from services.core.store import accounts, credentials
from services.core.store.engine import Store

PASSWORD = "correct horse"
HOME = Client("192.0.2.7", "imap")
ELSEWHERE = Client("198.51.100.1", "imap")


class Waits(Protocol):
    seconds: list[float]


Pod = Callable[[], Awaitable[Authenticator]]


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


async def _wrong(pod: Authenticator, client: Client, times: int, name: str = "alice@posta.test") -> None:
    for attempt in range(times):
        with pytest.raises(AuthFailed):
            await pod.verify(name, f"guess {attempt}", client)


async def test_every_form_of_the_name_leads_to_the_account(store: Store, pod: Pod, alice: AccountId) -> None:
    async with store.begin("test") as conn:
        await accounts.add_address(conn, alice, "a.liddell@posta.test")
        await accounts.add_alias(conn, "wonder@posta.test", ["alice@posta.test"])
        await accounts.add_alias(conn, "shared@posta.test", ["alice@posta.test", "x@example.org"])
    door = await pod()
    for name in ("alice@posta.test", "Alice@POSTA.Test", "a.liddell@posta.test", "wonder@posta.test"):
        assert await door.verify(name, PASSWORD, HOME) == Login(alice, "alice@posta.test", "Alice", frozenset())
    for name in ("shared@posta.test", "alice", "alice+tag@posta.test", "", "a\0lice@posta.test", "é@x"):
        with pytest.raises(AuthFailed):
            await door.verify(name, PASSWORD, HOME)


async def test_the_second_login_asks_neither_postgres_nor_argon2(
    pod: Pod, alice: AccountId, statements: Statements, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = await pod()
    first = await door.verify("alice@posta.test", PASSWORD, HOME)
    monkeypatch.setattr(passwords, "matching", None)
    statements.clear()
    assert await door.verify("alice@posta.test", PASSWORD, Client("192.0.2.200", "pop")) == first
    assert statements == []


async def test_a_rush_of_the_same_login_is_one(pod: Pod, alice: AccountId, statements: Statements) -> None:
    door = await pod()
    logins = await asyncio.gather(*(door.verify("alice@posta.test", PASSWORD, HOME) for _ in range(50)))
    assert {login.account_id for login in logins} == {alice}
    assert len(statements) == 3


async def test_a_changed_password_is_heard_of_at_once(
    store: Store, pod: Pod, alice: AccountId, hints: directory.Hints
) -> None:
    doors = [await pod(), await pod()]
    for door in doors:
        await door.verify("alice@posta.test", PASSWORD, HOME)
    async with store.begin("test") as conn:
        await enroll.set_password(conn, alice, "new")
    await directory.announce(hints, account_id=alice)
    for door in doors:
        with pytest.raises(AuthFailed):
            await door.verify("alice@posta.test", PASSWORD, HOME)
        assert (await door.verify("alice@posta.test", "new", HOME)).account_id == alice


async def test_a_change_during_the_check_is_not_remembered_wrongly(
    pod: Pod, alice: AccountId, hints: directory.Hints, statements: Statements
) -> None:
    door = await pod()
    login = asyncio.create_task(door.verify("alice@posta.test", PASSWORD, HOME))
    await statements.bell.wait()
    await directory.announce(hints, account_id=alice)
    await login
    statements.clear()
    await door.verify("alice@posta.test", PASSWORD, HOME)
    assert statements


async def test_a_suspended_account_is_refused_and_its_password_not_called_a_guess(
    store: Store, pod: Pod, alice: AccountId, hints: directory.Hints, waits: Waits
) -> None:
    door = await pod()
    await door.verify("alice@posta.test", PASSWORD, HOME)
    async with store.begin("test") as conn:
        await accounts.suspend(conn, alice)
    await directory.announce(hints, account_id=alice)
    for _ in range(10):
        with pytest.raises(AuthFailed):
            await door.verify("alice@posta.test", PASSWORD, HOME)
    assert waits.seconds == []


async def test_an_app_password_is_good_for_its_protocols_only(store: Store, pod: Pod, alice: AccountId) -> None:
    async with store.begin("test") as conn:
        number, app = await enroll.add_app_password(conn, alice, "phone", ["imap", "submission"])
    door = await pod()
    for _ in range(2):
        assert (await door.verify("alice@posta.test", app, HOME)).scopes == {"imap", "submission"}
        with pytest.raises(AuthFailed):
            await door.verify("alice@posta.test", app, Client(HOME.address, "pop"))
    assert (await door.verify("alice@posta.test", PASSWORD, HOME)).scopes == frozenset()
    async with store.begin("test") as conn:
        assert [each.label for each in await credentials.list_credentials(conn, alice)] == ["", "phone"]
        await credentials.remove(conn, alice, number)
        with pytest.raises(credentials.NoSuchCredential):
            await credentials.remove(conn, alice, number)


async def test_a_name_nobody_has_costs_what_a_wrong_password_costs(
    pod: Pod, alice: AccountId, statements: Statements, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = await pod()
    verified: list[str] = []
    real = passwords.verify
    monkeypatch.setattr(passwords, "verify", lambda h, o: bool(verified.append(h)) or real(h, o))
    shapes = []
    for name in ("alice@posta.test", "nobody@posta.test", "nobody@example.org", "no address"):
        statements.clear()
        verified.clear()
        await _wrong(door, ELSEWHERE, 1, name)
        shapes.append((list(statements), [each.rsplit("$", 2)[0] for each in verified]))
    assert all(shape == shapes[0] for shape in shapes)
    assert len(shapes[0][1]) == 1


async def test_failures_slow_the_account_in_every_process(pod: Pod, alice: AccountId, waits: Waits) -> None:
    one, two = await pod(), await pod()
    await _wrong(one, ELSEWHERE, 3)
    assert waits.seconds == []
    await _wrong(two, Client("203.0.113.5", "pop"), 6)
    assert waits.seconds == [1, 2, 4, 8, 8, 8]


async def test_the_owner_is_not_slowed_by_strangers(pod: Pod, alice: AccountId, waits: Waits) -> None:
    await (await pod()).verify("alice@posta.test", PASSWORD, HOME)
    attacker = await pod()
    await _wrong(attacker, ELSEWHERE, 10)
    await _wrong(attacker, Client("192.0.2.99", "imap"), 10, "bob@posta.test")  # a neighbour of hers, after another
    waits.seconds.clear()
    fresh = await pod()
    assert (await fresh.verify("alice@posta.test", PASSWORD, HOME)).account_id == alice
    assert waits.seconds == []
    assert (await fresh.verify("alice@posta.test", PASSWORD, Client("203.0.113.1", "imap"))).account_id == alice
    assert waits.seconds == [8]


async def test_a_network_that_tries_many_names_is_slowed(pod: Pod, alice: AccountId, waits: Waits) -> None:
    door = await pod()
    for n in range(8):
        await _wrong(door, Client(f"198.51.100.{n}", "imap"), 1, f"user{n}@posta.test")
    assert waits.seconds == [1, 2]
    await _wrong(door, Client("203.0.113.1", "imap"), 1, "user9@posta.test")
    assert waits.seconds == [1, 2]


async def test_guessing_beside_the_owner_is_not_answered_from_memory(pod: Pod, alice: AccountId, waits: Waits) -> None:
    door = await pod()
    await door.verify("alice@posta.test", PASSWORD, HOME)
    await _wrong(door, HOME, 4)
    waits.seconds.clear()
    await door.verify("alice@posta.test", PASSWORD, HOME)
    assert waits.seconds == [2]


async def test_failures_fade(store: Store, pod: Pod, alice: AccountId, waits: Waits) -> None:
    door = await pod()
    await _wrong(door, ELSEWHERE, 3)
    async with store.begin("test") as conn:
        await conn.exec_driver_sql("UPDATE login_failures SET last_at = last_at - interval '3 minutes'")
    await _wrong(door, ELSEWHERE, 1)  # 3 have become 2 (a third of the window of 600 s), and this one makes 3
    assert waits.seconds == []
    await _wrong(door, ELSEWHERE, 1)
    assert waits.seconds == [1]


async def test_guesses_at_once_count_before_they_have_failed_and_few_may_wait(
    store: Store, hints: directory.Hints, alice: AccountId
) -> None:
    gate = asyncio.Event()
    waited: list[float] = []

    async def sleep(delay_s: float) -> None:
        waited.append(delay_s)
        await gate.wait()

    door = Authenticator(store, hints, Settings(), sleep=sleep, workers=passwords.Workers(1))
    guesses = [asyncio.create_task(door.verify("alice@posta.test", f"guess {n}", ELSEWHERE)) for n in range(60)]
    done, waiting = await asyncio.wait(guesses, return_when=asyncio.FIRST_EXCEPTION)
    while len(done) + len(waited) < 60:
        more, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        done |= more
    gate.set()
    outcomes = await asyncio.gather(*guesses, return_exceptions=True)
    throttled = [each for each in outcomes if isinstance(each, AuthThrottled)]
    assert len(waited) == 8
    assert throttled
    assert len(throttled) + sum(isinstance(each, AuthFailed) for each in outcomes) == 60
    door.close()


async def test_old_parameters_are_renewed_at_the_next_login(store: Store, pod: Pod, alice: AccountId) -> None:
    old = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    async with store.begin("test") as conn:
        await conn.exec_driver_sql(f"UPDATE credentials SET argon2 = '{old}'")
    await (await pod()).verify("alice@posta.test", PASSWORD, HOME)
    async with store.begin("test") as conn:
        found = await credentials.find(conn, "alice@posta.test")
    assert found.owner is not None
    assert found.owner.keys[0].secret.argon2.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    await (await pod()).verify("alice@posta.test", PASSWORD, HOME)


async def test_without_postgres_known_logins_go_on_and_others_are_told_to_wait(
    store: Store, pod: Pod, alice: AccountId, hints: directory.Hints, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = await pod()
    await door.verify("alice@posta.test", PASSWORD, HOME)
    await _scram(door, "alice@posta.test", PASSWORD)
    dead = Store("postgresql://posta@127.0.0.1:1/none")
    monkeypatch.setattr(door, "_store", dead)
    assert (await door.verify("alice@posta.test", PASSWORD, HOME)).account_id == alice
    assert (await _scram(door, "alice@posta.test", PASSWORD)).account_id == alice
    for password in (PASSWORD, "other"):
        with pytest.raises(AuthUnavailable):
            await door.verify("bob@posta.test", password, HOME)
    with pytest.raises(AuthUnavailable):
        await _scram(door, "bob@posta.test", PASSWORD)


# ---- whole exchanges -------------------------------------------------------------------------------------------


async def _scram(door: Authenticator, name: str, password: str, client: Client = HOME) -> Login:
    """A client of SCRAM-SHA-256 that also checks the server."""
    bare = f"n={name},r=clientnonce"
    expected = b""

    async def ask(challenge: bytes) -> bytes:
        nonlocal expected
        if expected:
            assert challenge == b"v=" + b64encode(expected)
            return b""
        words = dict(word.split("=", 1) for word in challenge.decode().split(","))
        final = f"c=biws,r={words['r']}"
        message = f"{bare},{challenge.decode()},{final}".encode()
        keys = _client_keys(password, b64decode(words["s"]), int(words["i"]))
        proof = bytes(a ^ b for a, b in zip(keys[0], scram.server_signature(keys[1], message), strict=True))
        expected = scram.server_signature(keys[2], message)
        return f"{final},p={b64encode(proof).decode()}".encode()

    return await authenticate(door, "scram-sha-256", f"n,,{bare}".encode(), ask, client)


def _client_keys(password: str, salt: bytes, iterations: int) -> tuple[bytes, bytes, bytes]:
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    return hmac.digest(salted, b"Client Key", "sha256"), *scram.keys(password, salt, iterations)


async def test_scram_with_the_password_and_with_an_app_password(
    store: Store, pod: Pod, alice: AccountId, statements: Statements
) -> None:
    async with store.begin("test") as conn:
        _, app = await enroll.add_app_password(conn, alice, "phone", ["imap"])
    door = await pod()
    assert (await _scram(door, "alice@posta.test", PASSWORD)).account_id == alice
    statements.clear()
    assert (await _scram(door, "Alice@posta.test", PASSWORD)).account_id == alice
    assert (await _scram(door, "alice@posta.test", app)).scopes == {"imap"}
    assert statements == []
    with pytest.raises(AuthFailed):
        await _scram(door, "alice@posta.test", app, Client(HOME.address, "pop"))


async def test_scram_is_slowed_and_forgets_like_passwords_do(
    store: Store, pod: Pod, alice: AccountId, hints: directory.Hints, waits: Waits
) -> None:
    door = await pod()
    await _scram(door, "alice@posta.test", PASSWORD)
    for _ in range(4):
        with pytest.raises(AuthFailed):
            await _scram(door, "alice@posta.test", "guess")
    assert waits.seconds == [1]
    await _scram(door, "alice@posta.test", PASSWORD)
    assert waits.seconds == [1, 2]
    async with store.begin("test") as conn:
        await enroll.set_password(conn, alice, "new")
    await directory.announce(hints, domain="posta.test")
    with pytest.raises(AuthFailed):
        await _scram(door, "alice@posta.test", PASSWORD)
    await _scram(door, "alice@posta.test", "new")


async def test_scram_tells_every_pod_the_same_salt_for_a_name_nobody_has(pod: Pod, alice: AccountId) -> None:
    one, two = await pod(), await pod()
    offer = await one.scram_offer("nobody@posta.test", HOME)
    again = await two.scram_offer("Nobody@posta.test", ELSEWHERE)
    other = await two.scram_offer("somebody@posta.test", HOME)
    assert (offer.salt, offer.iterations) == (again.salt, again.iterations)
    assert offer.salt != other.salt
    real = await one.scram_offer("alice@posta.test", HOME)
    assert (len(real.salt), real.iterations) == (len(offer.salt), offer.iterations)
    with pytest.raises(AuthFailed):
        await _scram(one, "nobody@posta.test", PASSWORD)


async def test_doors_run_mechanisms(pod: Pod, alice: AccountId) -> None:
    door = await pod()
    script = iter([b"alice@posta.test", PASSWORD.encode()])

    async def ask(challenge: bytes) -> bytes:
        return next(script)

    assert (await authenticate(door, "LOGIN", None, ask, HOME)).account_id == alice
    plain = f"\0alice@posta.test\0{PASSWORD}".encode()
    assert (await authenticate(door, "PLAIN", plain, ask, HOME)).account_id == alice
    assert (await authenticate(door, "PLAIN", b"alice@posta.test" + plain, ask, HOME)).account_id == alice
    with pytest.raises(AuthFailed):
        await authenticate(door, "PLAIN", b"bob@posta.test" + plain, ask, HOME)
    with pytest.raises(ExchangeBroken):
        await authenticate(door, "PLAIN", b"nothing", ask, HOME)
    with pytest.raises(MechanismUnknown):
        await authenticate(door, "CRAM-MD5", None, ask, HOME)

    async def give_up(challenge: bytes) -> bytes:
        raise Cancelled

    with pytest.raises(Cancelled):
        await authenticate(door, "PLAIN", None, give_up, HOME)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("::ffff:192.0.2.1", "192.0.2.0/24"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix", "unix"),
    ],
)
def test_networks(address: str, network: str) -> None:
    assert network_of(address) == network
