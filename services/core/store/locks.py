"""Locks that die with their holder: advisory locks of one Postgres session per process."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import asyncpg

from services.core.ids import AccountId
from services.core.store.engine import StoreUnavailable

T = TypeVar("T")

_CLASS = 0x504F50 << 40  # "POP": account ids stay far below 2^40
_ANSWER_S = 5.0
_AGAIN_S = 1.0

_LOCK = "SELECT pg_try_advisory_lock($1)"
_UNLOCK = "SELECT pg_advisory_unlock($1)"
_LOCK_ALL = "SELECT k FROM unnest($1::bigint[]) AS k WHERE pg_try_advisory_lock(k)"

_LOST = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError)


class AccountLocks:
    """At most one holder per account over all processes; a holder that dies lets go at once.

    Session locks need a session: behind a pooler that shares connections between transactions, `url` must go past it.
    When that session is lost its locks are free for all until this process has a new one, a second later at most, and
    takes back those that nobody took meanwhile. So a lock keeps readers out of each other's way; it guards no data.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._claimed: set[AccountId] = set()  # held, or just being asked for
        self._held: set[AccountId] = set()
        self._conn: asyncpg.Connection[asyncpg.Record] | None = None
        self._turn = asyncio.Lock()
        self._closed = False
        self._tasks: set[asyncio.Task[Any]] = set()

    async def acquire(self, account_id: AccountId) -> bool:
        """Hold the account's lock; False when somebody does. Raises `StoreUnavailable`. Cancelled, it holds nothing."""
        # Postgres would give a session its own lock again, so what this process holds is remembered here.
        if account_id in self._claimed:
            return False
        self._claimed.add(account_id)
        asking = self._task(self._take(account_id))
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            self._task(self._give_back(asking, account_id))  # the answer may be yes
            raise

    async def release(self, account_id: AccountId) -> None:
        """Let go, even if the caller is cancelled meanwhile. If Postgres is gone, so is the lock."""
        await asyncio.shield(self._task(self._let_go(account_id)))

    async def close(self) -> None:
        """Let go of everything."""
        self._closed = True
        try:
            async with self._turn:
                if self._conn is not None:
                    await self._conn.close(timeout=_ANSWER_S)
        except _LOST:
            self._drop()

    # ---- one at a time on the one connection -------------------------------------------------------------------

    async def _take(self, account_id: AccountId) -> bool:
        got = False
        try:
            async with self._turn:
                conn = await self._session()
                got = bool(await conn.fetchval(_LOCK, _CLASS | account_id, timeout=_ANSWER_S))
                if got:
                    self._held.add(account_id)
        except _LOST as error:
            self._drop()
            raise StoreUnavailable(str(error)) from error
        finally:
            if not got:
                self._claimed.discard(account_id)
        return got

    async def _let_go(self, account_id: AccountId) -> None:
        if account_id in self._held:
            self._held.discard(account_id)  # before the turn: a new session must not take it again
            try:
                async with self._turn:
                    if self._conn is not None and not self._conn.is_closed():
                        await self._conn.fetchval(_UNLOCK, _CLASS | account_id, timeout=_ANSWER_S)
            except _LOST:
                self._drop()
        self._claimed.discard(account_id)

    async def _give_back(self, asking: asyncio.Task[bool], account_id: AccountId) -> None:
        try:
            if await asking:
                await self._let_go(account_id)
        except StoreUnavailable:
            return

    async def _session(self) -> asyncpg.Connection[asyncpg.Record]:
        if self._conn is not None and not self._conn.is_closed():
            return self._conn
        conn = await asyncpg.connect(
            self._url,
            timeout=_ANSWER_S,
            # A machine that dies sends no FIN: Postgres must find out, or its users stay locked out for hours.
            server_settings={
                "application_name": "posta-locks",
                "tcp_keepalives_idle": "10",
                "tcp_keepalives_interval": "5",
                "tcp_keepalives_count": "3",
            },
        )
        if keys := [_CLASS | account_id for account_id in self._held]:
            try:
                rows = await conn.fetch(_LOCK_ALL, keys, timeout=_ANSWER_S)
            except BaseException:
                conn.terminate()
                raise
            self._held &= {AccountId(row[0] ^ _CLASS) for row in rows}
        conn.add_termination_listener(self._terminated)
        self._conn = conn
        return conn

    def _terminated(self, conn: object) -> None:
        if self._held and not self._closed and conn is self._conn:
            self._task(self._regain())

    async def _regain(self) -> None:
        while self._held and not self._closed:
            try:
                async with self._turn:
                    await self._session()
            except _LOST:
                await asyncio.sleep(_AGAIN_S)
            else:
                return

    def _drop(self) -> None:
        """End a session that does not answer; its locks are taken again by the next one."""
        if self._conn is not None and not self._conn.is_closed():
            self._conn.terminate()

    def _task(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
