"""Which schemas a version of Posta can serve, and that a pod waits for one."""

from __future__ import annotations

import asyncio

import asyncpg
from alembic.script import ScriptDirectory

from services.core.store.migrate import config, lacks, migrate, wait

SCRIPTS = ScriptDirectory.from_config(config())
HEAD = str(SCRIPTS.get_current_head())


def test_the_newest_schema_and_one_that_is_newer_still_will_do() -> None:
    assert lacks(HEAD) == ""
    assert lacks("a revision of the next version") == ""


def test_every_older_schema_lacks_something() -> None:
    for script in SCRIPTS.walk_revisions():
        assert bool(lacks(script.revision)) == (script.revision != HEAD)


async def test_a_pod_waits_until_the_schema_is_there(postgres_server: str) -> None:
    url = postgres_server.rsplit("/", 1)[0] + "/waits_for_its_schema"
    conn = await asyncpg.connect(postgres_server)
    await conn.execute("CREATE DATABASE waits_for_its_schema")
    try:
        waiting = asyncio.create_task(wait(url))
        await asyncio.sleep(0)
        await migrate(url)
        await waiting
    finally:
        await conn.execute("DROP DATABASE waits_for_its_schema WITH (FORCE)")
        await conn.close()
