"""One pool of connections, three ways to borrow one, and one place where a lost database gets its name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy
from prometheus_client import Counter, Histogram
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from services.core import pooler
from services.core.telemetry import Metrics

if TYPE_CHECKING:
    from services.core.store.replica import Replica


class StoreUnavailable(Exception):
    """Postgres cannot be reached, or went away in the middle: nothing was kept, the caller may try again."""


# SQLSTATE classes that mean "not now" rather than "wrong": 08 connection, 53 resources (disk full), 57P shutdown,
# 25006 a standby, 40 serialization failure or deadlock.
_UNAVAILABLE = ("08", "53", "57P", "25006", "40")


def _is_unavailable(error: BaseException) -> bool:
    if isinstance(error, DBAPIError):
        if error.connection_invalidated or error.orig is None:
            return True
        return _is_unavailable(error.orig) or (
            error.orig.__cause__ is not None and _is_unavailable(error.orig.__cause__)
        )
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "").startswith(_UNAVAILABLE)
    return isinstance(
        error, OSError | PoolTimeout | asyncpg.InterfaceError | asyncpg.InternalClientError | TimeoutError
    )


Connection: TypeAlias = AsyncConnection  # for those outside this room who pass one on

Driver: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"

# Statements are prepared once and run for ever: planning the larger ones each time costs more than running them.
_SETTINGS = {"jit": "off", "application_name": "posta", "plan_cache_mode": "force_generic_plan"}
_PREPARED: dict[str, Any] = {"server_settings": _SETTINGS}
# On the hot paths: a plan made while its table was empty would read the whole of it ever after, if it were allowed to
# where there is an index. Upkeep may have to read a table whole.
_LOOKS_UP: dict[str, Any] = {"server_settings": {**_SETTINGS, "enable_seqscan": "off"}}
# Through a pooler that carries no prepared statements over: each is sent whole and unnamed, two round trips instead of
# one. A pooler also refuses settings that it does not know.
_WHOLE: dict[str, Any] = {"server_settings": {"application_name": "posta"}, "statement_cache_size": 0}
_WHOLE_IN_SQLALCHEMY = {"prepared_statement_cache_size": 0, "prepared_statement_name_func": str}  # str() is no name


async def _keep(_conn: object) -> None:
    """Nothing that the driver's users do outlives their statement, so nothing needs to be reset."""


class Store:
    """The pool. Raises `StoreUnavailable` when Postgres is gone; a cancelled borrower's work is rolled back."""

    def __init__(
        self,
        url: str,
        pool: int = 8,
        metrics: Metrics | None = None,
        connect_timeout_s: float = 5,
        statement_timeout_s: float = 60,
    ) -> None:
        """`url`: postgresql://user:password@host:port/database, with `?prepared_statements=off` through a pooler that
        carries none over. `pool`: connections kept and at most opened. `statement_timeout_s` is for `driver`, where
        messages and readers wait: what is not answered by then is cancelled, and the store unavailable, for its host
        may have vanished. Upkeep takes what time it needs.
        """
        self._seconds: Histogram | None = None
        self._away: Counter | None = None
        if metrics is not None:
            self._seconds = metrics.histogram(
                "store_transaction_seconds", "Time a named store transaction held its connection.", ["name"]
            )
            self._away = metrics.counter("store_unavailable", "Transactions that found no database, or lost it.")
        self._url, prepared = pooler.split(url)
        self._size, timeouts = pool, {"timeout": connect_timeout_s, "command_timeout": statement_timeout_s}
        self._told_drivers = {**timeouts, **(_LOOKS_UP if prepared else _WHOLE)}
        told = _PREPARED if prepared else {**_WHOLE, **_WHOLE_IN_SQLALCHEMY}
        self._engine = create_async_engine(
            make_url(self._url).set(drivername="postgresql+asyncpg"),
            pool_size=pool,
            max_overflow=0,
            pool_timeout=20,
            pool_use_lifo=True,  # idle connections stay idle, so their backends can be trimmed
            connect_args={"timeout": connect_timeout_s, **told},
        )
        self.replica: Replica | None = None
        """Where there is one: a copy that may be behind."""
        self._drivers: asyncpg.Pool[asyncpg.Record] | None = None
        self._opening = asyncio.Lock()
        self._autocommit = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._snapshot = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    @asynccontextmanager
    async def begin(self, name: str) -> AsyncIterator[AsyncConnection]:
        """A read-committed transaction that commits when the block ends; `name` ("imap.store_flags") feeds metrics."""
        with _Named(name, self._seconds, self._away):
            async with self._engine.begin() as conn:
                yield conn

    @asynccontextmanager
    async def read(self, name: str) -> AsyncIterator[AsyncConnection]:
        """One unchanging picture of the store for several statements: REPEATABLE READ, read only."""
        with _Named(name, self._seconds, self._away):
            async with self._snapshot.begin() as conn:
                yield conn

    @asynccontextmanager
    async def query(self, name: str) -> AsyncIterator[AsyncConnection]:
        """Autocommit: for single statements, which need no BEGIN and COMMIT around them."""
        with _Named(name, self._seconds, self._away):
            async with self._autocommit.connect() as conn:
                yield conn

    @asynccontextmanager
    async def driver(self, name: str) -> AsyncIterator[Driver]:
        """A bare asyncpg connection, outside any transaction: measured hot paths only.

        From a pool of its own: a connection out of the other one costs more than most statements.
        """
        with _Named(name, self._seconds, self._away):
            async with self._opening:
                if self._drivers is None:
                    self._drivers = await asyncpg.create_pool(
                        self._url, min_size=1, max_size=self._size, reset=_keep, **self._told_drivers
                    )
            async with self._drivers.acquire(timeout=20) as conn:
                try:
                    yield conn
                except asyncpg.InternalClientError:
                    # The server's farewell met a statement on its way: the connection is of no use to the next one.
                    conn.terminate()
                    raise

    async def check(self) -> None:
        """Return if Postgres answers on both pools and its schema is there; else raise `StoreUnavailable`.

        For readiness: nobody is let in before there are connections to serve the first one with.
        """
        async with self.query("store.check") as conn:
            await conn.execute(_CHECK)
        async with self.driver("store.check") as bare:
            await bare.execute(_CHECK.text)

    async def close(self) -> None:
        """Close every connection; borrowed ones when they come back."""
        if self.replica is not None:
            await self.replica.close()
        await self._engine.dispose()
        if self._drivers is not None:
            self._drivers.terminate()


_CHECK = text("SELECT version_num FROM alembic_version")


class _Named:
    """Times a block under its name and turns what means "no database" into `StoreUnavailable`."""

    __slots__ = ("_away", "_name", "_seconds", "_start")

    def __init__(self, name: str, seconds: Histogram | None, away: Counter | None) -> None:
        self._name = name
        self._seconds, self._away = seconds, away

    def __enter__(self) -> None:
        self._start = perf_counter()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._seconds is not None:
            self._seconds.labels(self._name).observe(perf_counter() - self._start)
        if error is not None and _is_unavailable(error):
            if self._away is not None:
                self._away.inc()
            raise StoreUnavailable(str(error).splitlines()[0] if str(error) else repr(error)) from error
