"""Postgres for whoever needs it: one server for the run, one fresh database per worker, emptied before each test."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from services.core.store.engine import Store
from services.core.store.migrate import migrate
from services.core.store.tables import metadata

_EMPTY = "TRUNCATE " + ", ".join(table.name for table in metadata.sorted_tables) + " RESTART IDENTITY"


async def _run(url: str, statement: str) -> None:
    conn = await asyncpg.connect(url)
    try:
        await conn.execute(statement)
    finally:
        await conn.close()


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server where databases may be made: POSTA_TEST_DATABASE_URL, or an embedded one for this run."""
    given = os.environ.get("POSTA_TEST_DATABASE_URL")
    if given:
        yield given
        return
    from services.dev.postgres import Postgres

    server = Postgres(Path(tmp_path_factory.mktemp("postgres")), port=0)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


@pytest.fixture(scope="session")
def postgres_url(postgres_server: str) -> Iterator[str]:
    """A database of our own, at the newest schema."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    asyncio.run(_run(postgres_server, f"CREATE DATABASE {name}"))
    url = postgres_server.rsplit("/", 1)[0] + "/" + name
    asyncio.run(migrate(url))
    yield url
    asyncio.run(_run(postgres_server, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[Store]:
    """An empty store."""
    await _run(postgres_url, _EMPTY)
    store = Store(postgres_url)
    yield store
    await store.close()
