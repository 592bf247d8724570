"""What a migration Job says, with which exit code, which schemas a version can serve, and that a pod waits for one."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator

import asyncpg
import pytest
from alembic.script import ScriptDirectory

from services.core.store.migrate import config, lacks, main, migrate

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
    assert lacks("") == "no schema yet"


def test_every_older_schema_lacks_something() -> None:
    for script in SCRIPTS.walk_revisions():
        assert bool(lacks(script.revision)) == (script.revision != HEAD)


@pytest.fixture
def new_database(postgres_server: str) -> Iterator[str]:
    """The URL of a database without a schema."""
    asyncio.run(_execute(postgres_server, "CREATE DATABASE of_some_version"))
    yield postgres_server.rsplit("/", 1)[0] + "/of_some_version"
    asyncio.run(_execute(postgres_server, "DROP DATABASE of_some_version WITH (FORCE)"))


async def _execute(url: str, *statements: str) -> None:
    conn = await asyncpg.connect(url)
    try:
        for statement in statements:
            await conn.execute(statement)
    finally:
        await conn.close()


async def test_a_pod_waits_until_the_schema_is_there(new_database: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.core.store.migrate", "--wait"),
        env={**os.environ, "POSTA_DATABASE_URL": new_database},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    assert b"no schema yet" in await process.stdout.readline()
    await migrate(new_database)
    assert await process.wait() == 0


NEWER = "UPDATE alembic_version SET version_num = 'of_the_next_version'"


def run(url: str, *words: str) -> tuple[int, str]:
    """Exit code and stderr of the init container (`--wait`) or of the Job."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("POSTA_")}
    done = subprocess.run(
        (sys.executable, "-m", "services.core.store.migrate", *words),
        env={**clean, "POSTA_DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stderr


def test_a_newer_schema_that_only_expanded_serves_this_version(new_database: str) -> None:
    assert run(new_database) == (0, f"posta: the schema is at {HEAD}\n")
    assert run(new_database, "--wait") == (0, "")
    # It took away what nobody has used since a revision that is known here.
    asyncio.run(_execute(new_database, NEWER, f"INSERT INTO needed_revisions VALUES ('{HEAD}')"))
    assert run(new_database, "--wait") == (0, "")
    assert run(new_database) == (0, "posta: the schema is at of_the_next_version\n")


def test_a_schema_that_took_away_what_this_version_uses_is_refused_in_one_line(new_database: str) -> None:
    asyncio.run(migrate(new_database))
    asyncio.run(_execute(new_database, NEWER, "INSERT INTO needed_revisions VALUES ('after_this_one')"))
    line = (
        "posta: the schema is at of_the_next_version and needs a version of Posta that knows after_this_one; "
        f"this one ends at {HEAD}\n"
    )
    assert run(new_database, "--wait") == (2, line)
    assert run(new_database) == (2, line)
