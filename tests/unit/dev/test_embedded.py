"""The embedded servers: who may reach them, what survives, what is said when they cannot be had."""

import asyncio
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from nats.aio.client import Client

from services.dev import nats, place, postgres
from services.dev.child import Child, State
from services.dev.home import Home
from services.dev.trouble import Trouble

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def run(program: postgres.Program) -> Child:
    child = Child(program, lambda: None, lambda line: None)
    child.start()
    return child


def _shipped_to(folder: Path) -> Path:
    """A copy of the wheel's folder, libraries beside it."""
    shipped = place._wheel()
    for each in (shipped, shipped.parent / f"{shipped.name}.libs"):
        if each.exists():
            shutil.copytree(each, folder / each.name)
    return folder / shipped.name


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    home = Home(tmp_path / "private" / "home")
    home.prepare()
    home.root.parent.chmod(0o700)
    yield home
    place.wipe(home)


async def test_committed_rows_survive_a_kill(home: Home, unused_tcp_port: int) -> None:
    server = postgres.embedded(home, unused_tcp_port)
    server.prepare()
    child = run(server.program())
    try:
        await child.until_ready(20)
        conn = await asyncpg.connect(server.url)
        await conn.execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)")
        assert await conn.fetchval("SHOW synchronous_commit") == "on"
        assert await conn.fetchval("SHOW fsync") == "on"

        first = child.pid
        os.kill(first, signal.SIGKILL)
        with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError)):
            await conn.execute("SELECT pg_sleep(60)")
        while child.pid in (0, first):
            child._moved.clear()
            await child._moved.wait()
        await child.until_ready(20)

        conn = await asyncpg.connect(server.url)
        assert await conn.fetchval("SELECT n FROM kept") == 7
        await conn.close()
    finally:
        await child.stop()
    assert child.state is State.DOWN


async def test_a_second_start_finds_the_data_and_a_strange_lock_does_no_harm(home: Home, unused_tcp_port: int) -> None:
    server = postgres.embedded(home, unused_tcp_port)
    server.prepare()
    # A pid that lives but is no postgres of these data, as after the restart of a container.
    (server.place.data / "postmaster.pid").write_text(f"{os.getpid()}\n{server.place.data}\n")
    again = postgres.embedded(home, unused_tcp_port)
    again.prepare()
    assert again == server
    child = run(again.program())
    try:
        await child.until_ready(20)
        conn = await asyncpg.connect(again.url)
        assert await conn.fetchval("SELECT current_database()") == "posta"
        await conn.close()
    finally:
        await child.stop()


async def test_strangers_on_the_machine_are_not_let_in(home: Home, unused_tcp_port: int) -> None:
    server = postgres.embedded(home, unused_tcp_port)
    server.prepare()
    child = run(server.program())
    try:
        await child.until_ready(20)
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(server.url.replace(home.secret("postgres-password"), "guess"))
    finally:
        await child.stop()
    for private in (server.place.data, server.place.sockets, home.root):
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
    for secret in ("postgres-password",):
        assert stat.S_IMODE((home.root / secret).stat().st_mode) == 0o600


@as_root
async def test_root_with_a_private_home_loosens_nothing(
    home: Home, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = _shipped_to(home.root.parent / "site")
    monkeypatch.setattr(place, "_wheel", lambda: wheel)

    server = postgres.embedded(home, unused_tcp_port)
    server.prepare()
    child = run(server.program())
    try:
        await child.until_ready(20)
        assert Path(f"/proc/{child.pid}").stat().st_uid == server.place.owner.uid != 0
    finally:
        await child.stop()
    assert server.place.root in server.place.binaries.parents
    assert stat.S_IMODE(home.root.parent.stat().st_mode) == stat.S_IMODE(home.root.stat().st_mode) == 0o700
    assert postgres.embedded(home, unused_tcp_port).place == server.place, "the copy is made once"


@as_root
async def test_a_deleted_home_leaves_no_data_behind(home: Home, unused_tcp_port: int) -> None:
    old = postgres.embedded(home, unused_tcp_port).place.root
    shutil.rmtree(home.root)
    home.prepare()

    new = postgres.embedded(home, unused_tcp_port).place.root

    assert new != old
    assert not old.exists()


async def test_data_of_another_version_or_user_is_one_clear_line(home: Home, unused_tcp_port: int) -> None:
    server = postgres.embedded(home, unused_tcp_port)
    server.prepare()
    version = server.place.data / "PG_VERSION"
    theirs = version.read_text()
    version.write_text("16\n")
    with pytest.raises(Trouble, match=r"was made by Postgres 16, this installation brings 18: .*move"):
        server.prepare()
    version.write_text(theirs)
    if os.geteuid() == 0:
        os.chown(server.place.data, 12345, 12345)
        with pytest.raises(Trouble, match=r"belongs to uid 12345, but Postgres would run as"):
            server.prepare()


@as_root
def test_an_ordinary_user_needs_nothing_outside_the_home(unused_tcp_port: int) -> None:
    nobody = pwd.getpwnam("nobody")

    async def start_and_stop(home: Home) -> None:
        home.prepare()
        server = postgres.embedded(home, unused_tcp_port)
        server.prepare()
        assert home.root in server.place.data.parents
        child = run(server.program())
        await child.until_ready(20)
        await child.stop()

    # This clone may lie where nobody may not go: the wheel is put within reach, the interpreter is inherited by fork.
    with tempfile.TemporaryDirectory(prefix="posta-test-") as folder:
        wheel = _shipped_to(Path(folder))
        subprocess.run(("chown", "-R", "nobody", folder), check=True)
        if (pid := os.fork()) == 0:
            code = 1
            try:
                os.setgroups(())
                os.setgid(nobody.pw_gid)
                os.setuid(nobody.pw_uid)
                os.chdir("/")
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(place, "_wheel", lambda: wheel)
                    asyncio.run(start_and_stop(Home(Path(folder) / "home")))
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@as_root
def test_the_home_of_another_user_is_one_clear_line(tmp_path: Path) -> None:
    home = Home(tmp_path / "theirs")
    home.prepare()
    os.chown(home.run, pwd.getpwnam("nobody").pw_uid, -1)
    with pytest.raises(Trouble, match=r"was made by nobody, this is root: run posta as nobody, or set POSTA_HOME"):
        home.prepare()


async def test_nats_has_jetstream_and_a_password(home: Home, unused_tcp_port: int) -> None:
    server = nats.embedded(home, unused_tcp_port)
    server.prepare()
    child = run(server.program())
    client = Client()
    try:
        await child.until_ready(20)
        await client.connect(server.url, allow_reconnect=False)
        await client.jetstream().account_info()
        await client.close()
        with pytest.raises(Exception, match=r"(?i)authorization"):
            await Client().connect(f"nats://127.0.0.1:{server.port}", allow_reconnect=False)
    finally:
        await child.stop()
    assert "Lame" in home.log_of("nats").read_text() or "lame" in home.log_of("nats").read_text()


def test_a_server_for_tests_leaves_nothing(tmp_path: Path) -> None:
    server = postgres.Postgres(tmp_path / "scratch")
    server.start()
    outside = server._server.place.root

    server.stop()

    assert not outside.exists()
    assert not (tmp_path / "scratch").exists()
