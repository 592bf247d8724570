"""What a migration Job says, with which exit code, which schemas a version can serve, and that a pod waits for one."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from alembic.script import ScriptDirectory

from services.core.store.migrate import config, lacks, main, migrate, wait

SCRIPTS = ScriptDirectory.from_config(config())
HEAD = str(SCRIPTS.get_current_head())


def test_a_database_that_is_up_to_date_is_left_as_it_is(postgres_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(postgres_url) == 0
    assert capsys.readouterr().err.startswith("posta: the schema is at ")


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("postgresql://posta:secret@127.0.0.1:1/posta", 1, "Connect call failed"),
        ("postgresql://posta:secret@nowhere.invalid/posta", 1, "not known"),
        ("secret", 2, "POSTA_DATABASE_URL: expected "),
        ("postgresql://posta:secret@host:port/posta", 2, "POSTA_DATABASE_URL: expected "),
    ],
)
def test_trouble_is_one_line_without_the_password(
    url: str, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(url) == code
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert said in line
    assert "secret" not in line


def test_a_wrong_password_is_one_line(postgres_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    scheme, _, rest = postgres_url.partition("://")
    wrong = f"{scheme}://posta:wrong@{rest.rpartition('@')[2]}"

    assert main(wrong) == 1
    assert capsys.readouterr().err.endswith('password authentication failed for user "posta"\n')


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
