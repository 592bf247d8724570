"""Bring the schema to the newest revision: `python -m services.core.store.migrate`, a Job before the pods.

Revisions only expand what the running version uses, so version N and N-1 run together; a later revision contracts. One
that does puts into `needed_revisions` the revision from which on nobody uses what it takes away: a version that does
not know that one would break, and its init container stops it. Any other schema that is newer than a version serves it.

With `--wait` nothing is changed: it returns once the schema is no older than this version, which is what a pod's init
container waits for.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
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
_UNKNOWN = text("SELECT revision FROM needed_revisions WHERE revision <> ALL(CAST(:known AS text[])) LIMIT 1")
_LOOK_S = 2.0
_LIMITS = text("SET lock_timeout = '4s'")  # rather fail than queue every reader behind a table lock


class Outdated(Exception):
    """The schema lacks by now what this version of Posta uses; says so in a line."""


def config(connection: Connection | None = None) -> Config:
    """Alembic's settings; with a connection, what `command.upgrade` needs to run."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    made.set_main_option("file_template", "%%(year)d_%%(month).2d_%%(day).2d_%%(slug)s")
    made.attributes["connection"] = connection
    return made


def _upgrade(connection: Connection) -> str:
    connection.execute(_LOCK)
    connection.execute(_LIMITS)
    version = MigrationContext.configure(connection).get_current_revision()
    if version is not None and version not in _known():
        _check(version, connection.execute(_UNKNOWN, {"known": _known()}).scalar_one_or_none())
        return version
    connection.commit()
    command.upgrade(config(connection), "head")
    return _newest()


async def migrate(url: str) -> str:
    """Upgrade the database at `url` to the head; idempotent and safe to run twice at once. The schema's revision then.

    A schema that is newer stays as it is. Raises `Outdated`.
    """
    engine = create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"))
    try:
        async with engine.connect() as conn:
            version = await conn.run_sync(_upgrade)
            await conn.commit()
    finally:
        await engine.dispose()
    return version


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


def _known() -> list[str]:
    return [script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()]


def _check(version: str, needed: str | None) -> None:
    if needed is not None:
        line = (
            f"the schema is at {version} and needs a version of Posta that knows {needed}; this one ends at {_newest()}"
        )
        raise Outdated(line)


def main(url: str) -> int:
    """`migrate` for a Job: one line of what came of it, and its exit code: 0, 1 to try again, 2 if that is vain."""
    try:
        make_url(url)
    except (ArgumentError, ValueError):
        # Nothing of it is repeated: it may hold a password.
        sys.stderr.write("posta: POSTA_DATABASE_URL: expected postgresql://user:password@host:port/database\n")
        return 2
    try:
        version = asyncio.run(migrate(url))
    except Outdated as error:
        sys.stderr.write(f"posta: {error}\n")
        return 2
    except (OSError, DBAPIError, PostgresError, InterfaceError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        sys.stderr.write(f"posta: the schema was not brought up to date: {reason}\n")
        return 1
    sys.stderr.write(f"posta: the schema is at {version}\n")
    return 0


def lacks(version: str) -> str:
    """Why a schema at `version` (empty: none) is too old for this version of Posta; empty when it is not.

    A revision that is not known here is newer: the version after this one has migrated already.
    """
    if not version:
        return "no schema yet"
    head = _newest()
    return f"the schema is at {version}, {head} is needed" if version != head and version in _known() else ""


async def wait(url: str) -> None:
    """Return once the schema at `url` is no older than this version needs; logs one line for each reason to wait.

    Raises `Outdated`.
    """
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
        if reason := lacks(version):
            return reason
        async with store.query("store.needed") as conn:
            needed = (await conn.execute(_UNKNOWN, {"known": _known()})).scalar_one_or_none()
    except StoreUnavailable as error:
        return str(error)
    _check(version, needed)
    return ""


def waited(url: str) -> int:
    """`wait` for an init container; its exit code: 0, or 2 with one line of why this version must not run."""
    try:
        asyncio.run(wait(url))
    except Outdated as error:
        sys.stderr.write(f"posta: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    database = load().database
    url = database.direct_url or database.url
    sys.exit(waited(url) if "--wait" in sys.argv[1:] else main(url))
