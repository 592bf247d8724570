"""Bring the schema to the newest revision: `python -m services.core.store.migrate`, a Job before the pods.

Revisions only expand what the running version uses, so version N and N-1 run together; a later revision contracts.
With `--wait` nothing is changed: it returns once the schema is no older than this version, which is what a pod's init
container waits for.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from asyncpg import InterfaceError, PostgresError
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, ProgrammingError
from sqlalchemy.ext.asyncio import create_async_engine

from services.core.settings import load
from services.core.store.engine import Store, StoreUnavailable
from services.core.telemetry import configure_logs

_LOCK = text("SELECT pg_advisory_lock(7233920101)")  # two Jobs at once: the second finds nothing left to do
_PRESENT = text("SELECT version_num FROM alembic_version")
_LOOK_S = 2.0
_LIMITS = text("SET lock_timeout = '4s'")  # rather fail than queue every reader behind a table lock


def config(connection: Connection | None = None) -> Config:
    """Alembic's settings; with a connection, what `command.upgrade` needs to run."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    made.set_main_option("file_template", "%%(year)d_%%(month).2d_%%(day).2d_%%(slug)s")
    made.attributes["connection"] = connection
    return made


def _upgrade(connection: Connection) -> None:
    connection.execute(_LOCK)
    connection.execute(_LIMITS)
    connection.commit()
    command.upgrade(config(connection), "head")


async def migrate(url: str) -> None:
    """Upgrade the database at `url` to the head; idempotent and safe to run twice at once."""
    engine = create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"))
    try:
        async with engine.connect() as conn:
            await conn.run_sync(_upgrade)
            await conn.commit()
    finally:
        await engine.dispose()


async def present(store: Store) -> str:
    """The schema's revision; empty where there is no schema. Raises StoreUnavailable."""
    try:
        async with store.query("store.revision") as conn:
            return str((await conn.execute(_PRESENT)).scalar_one())
    except ProgrammingError:
        return ""


async def revisions(store: Store) -> tuple[str, str]:
    """The schema's revision, and the one that this version needs. Raises StoreUnavailable."""
    return await present(store), await asyncio.to_thread(_newest)


def _newest() -> str:
    return str(ScriptDirectory.from_config(config()).get_current_head())


def main(url: str) -> int:
    """`migrate` for a Job: one line of what came of it, and its exit code: 0, 1 to be tried again, 2 for a bad URL."""
    try:
        make_url(url)
    except (ArgumentError, ValueError):
        # Nothing of it is repeated: it may hold a password.
        sys.stderr.write("posta: POSTA_DATABASE_URL: expected postgresql://user:password@host:port/database\n")
        return 2
    try:
        asyncio.run(migrate(url))
    except (OSError, DBAPIError, PostgresError, InterfaceError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        sys.stderr.write(f"posta: the schema was not brought up to date: {reason}\n")
        return 1
    sys.stderr.write(f"posta: the schema is at {_newest()}\n")
    return 0


def lacks(version: str) -> str:
    """Why a schema at `version` cannot serve this version of Posta; empty when it can.

    A revision that is not known here is newer: the version after this one has migrated already.
    """
    scripts = ScriptDirectory.from_config(config())
    head = scripts.get_current_head()
    older = {script.revision for script in scripts.walk_revisions()} - {head}
    return f"the schema is at {version}, {head} is needed" if version in older else ""


async def wait(url: str) -> None:
    """Return once the schema at `url` is no older than this version needs; logs one line for each reason to wait."""
    log, said = configure_logs("schema"), ""
    store = Store(url, pool=1)
    try:
        while reason := await _reason(store):
            if reason != said:
                log.warning("waiting", dependency="schema", reason=reason)
                said = reason
            await asyncio.sleep(_LOOK_S)
    finally:
        await store.close()


async def _reason(store: Store) -> str:
    try:
        version = await present(store)
    except StoreUnavailable as error:
        return str(error)
    return lacks(version) if version else "no schema yet"


if __name__ == "__main__":
    database = load().database
    url = database.direct_url or database.url
    if "--wait" in sys.argv[1:]:
        asyncio.run(wait(url))
    else:
        sys.exit(main(url))
