"""The house keeps its shape: walls, contracts, migrations. Checked here, not in review."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

import services
from services.core.store.migrate import config
from services.core.store.tables import metadata

ROOT = Path(__file__).parents[2]


def _python(*args: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], cwd=cwd, capture_output=True, text=True, check=False)


def test_services_is_ours() -> None:
    assert Path(str(services.__file__)).parent == ROOT / "services"


def test_walls() -> None:
    done = _python("-c", "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())")
    assert done.returncode == 0, done.stdout + done.stderr


def test_contracts_are_what_proto_says(tmp_path: Path) -> None:
    plugin = Path(sys.executable).with_name("protoc-gen-mypy")
    sources = [str(p.relative_to(ROOT)) for p in ROOT.glob("proto/**/*.proto")]
    done = _python(
        "-m", "grpc_tools.protoc", "-Iproto", f"--plugin={plugin}",
        f"--python_out={tmp_path}", f"--mypy_out={tmp_path}", *sources,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = {p.relative_to(tmp_path): p.read_text() for p in tmp_path.rglob("*_pb2.py*")}
    kept = {p.relative_to(ROOT): p.read_text() for p in ROOT.glob("services/contracts/**/*_pb2.py*")}
    assert made == kept, "run `make proto`"


def test_migrations_have_one_head() -> None:
    assert len(ScriptDirectory.from_config(config()).get_heads()) == 1


async def test_migrations_lead_to_the_tables(postgres_url: str) -> None:
    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    engine = create_async_engine(make_url(postgres_url).set(drivername="postgresql+asyncpg"))
    async with engine.connect() as conn:
        assert await conn.run_sync(differences) == []
    await engine.dispose()


GROWING = [table for table in metadata.sorted_tables if table.info["distribution"] != "reference"]
# The first column of every unique index; none where an expression comes first.
_LEADS = text("""
SELECT t.relname, i.relname, a.attname FROM pg_index x
JOIN pg_class t ON t.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid
LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = x.indkey[0]
WHERE x.indisunique AND t.relnamespace = 'public'::regnamespace
""")


def test_every_growing_table_leads_its_keys_with_its_distribution_column() -> None:
    for table in GROWING:
        column = table.info["distribution"]
        keys = [table.primary_key, *(c for c in table.constraints if type(c).__name__ == "UniqueConstraint")]
        leads = {key.columns[0].name for key in keys} | {i.columns[0].name for i in table.indexes if i.unique}
        assert leads == {column}, table.name
        for key in table.foreign_key_constraints:
            # Between two tables that are sharded, only rows of one shard can be held to each other.
            assert key.referred_table not in GROWING or column in key.column_keys, table.name


async def test_every_key_that_the_migrations_make_leads_with_the_distribution_column(postgres_url: str) -> None:
    """What compares migrations with the tables does not look at primary keys."""
    engine = create_async_engine(make_url(postgres_url).set(drivername="postgresql+asyncpg"))
    async with engine.connect() as conn:
        rows = await conn.execute(_LEADS)
        made = {(str(table), str(index)): column for table, index, column in rows}
    await engine.dispose()
    for table in GROWING:
        found = {index: column for (owner, index), column in made.items() if owner == table.name}
        assert set(found.values()) == {table.info["distribution"]}, f"{table.name}: {found}"
        assert f"{table.name}_pkey" in found


def test_no_file_names_what_the_house_forbids() -> None:
    names = [p.stem for p in ROOT.glob("services/**/*.py")]
    assert not {"utils", "helpers", "common", "misc"}.intersection(names)
    parked = re.compile(r"\b(TODO|FIXME|XXX)\b")
    found = [str(p) for p in ROOT.glob("services/**/*.py") if parked.search(p.read_text())]
    assert found == []
