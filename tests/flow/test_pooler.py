"""A whole platform behind Debian's PgBouncer in transaction mode, which shares connections between transactions and
carries no prepared statement from one to the next.
"""

from __future__ import annotations

import asyncio
import os
import poplib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.flow.clients import Imap, arrived, drop, inbox, letter, message_id, submit
from tests.flow.conftest import User

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
POOL = 4  # connections of all services together; each of them alone would take eight

pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="needs pgbouncer")


@pytest.fixture(scope="module")
def pooled_url(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The database through a pooler; without the word that it is one."""
    assert PGBOUNCER is not None
    direct, folder = urlsplit(postgres_url), tmp_path_factory.mktemp("pooler")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = folder / "pgbouncer.ini"
    config.write_text(f"""
[databases]
posta = host={direct.hostname} port={direct.port} dbname={direct.path[1:]} user={direct.username} \
password={direct.password} connect_query='SET jit = off'
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {POOL}
max_client_conn = 400
{"user = nobody" if os.geteuid() == 0 else ""}
""")
    for path in (config, folder, *list(folder.parents)[:2]):
        path.chmod(0o755)
    with (folder / "log").open("w") as log:
        bouncer = subprocess.Popen((PGBOUNCER, str(config)), stdout=log, stderr=log)
    try:
        _until_open(port, bouncer, folder / "log")
        yield f"postgresql://posta:none@127.0.0.1:{port}/posta"
    finally:
        bouncer.terminate()
        bouncer.wait(20)


def _until_open(port: int, bouncer: subprocess.Popen[bytes], log: Path) -> None:
    while bouncer.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
    pytest.fail(log.read_text())


@pytest.fixture(scope="module")
def pooled(new_platform: Any, pooled_url: str, postgres_url: str) -> Any:
    platform = new_platform(
        {
            "POSTA_DATABASE_URL": f"{pooled_url}?prepared_statements=off",
            "POSTA_DATABASE_DIRECT_URL": postgres_url,
            "POSTA_FILTER_HOLD_SCORE": "8",
        }
    )
    platform.posta("up", "--detach")
    platform.state = platform.status()
    return platform


def backends(url: str) -> int:
    """How many connections of the services Postgres has, but for the locks of POP."""

    async def ask() -> int:
        conn = await asyncpg.connect(url)
        try:
            return int(
                await conn.fetchval(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND pid <> pg_backend_pid() AND application_name <> 'posta-locks'"
                )
            )
        finally:
            await conn.close()

    return asyncio.run(ask())


def test_mail_goes_the_whole_way_on_shared_connections(pooled: Any, postgres_url: str) -> None:
    alice, carol = pooled.add_user(), pooled.add_user()
    message = letter(alice.address, carol.address)
    with Imap(pooled, carol) as phone:
        phone.idle()
        assert submit(pooled, alice, carol.address, message)[0] == 250
        phone.heard(rb"\* 1 EXISTS")
        phone.done()
        assert b"* 1 FETCH" in b"".join(phone.command(r"STORE 1 +FLAGS (\Flagged)"))
    assert message_id(message).encode() in arrived(pooled, carol, message_id(message))
    assert [step for each in pooled.trace(message_id(message)) for step in each["steps"]]
    assert backends(postgres_url) <= POOL


def test_everything_that_many_send_at_once_arrives_once(pooled: Any, postgres_url: str) -> None:
    senders, carol = [pooled.add_user() for _ in range(6)], pooled.add_user()
    messages = [(sender, letter(sender.address, carol.address, f"{n}\r\n")) for sender in senders for n in range(5)]

    def send(one: tuple[User, bytes]) -> int:
        return submit(pooled, one[0], carol.address, one[1])[0]

    with ThreadPoolExecutor(12) as crowd:
        assert set(crowd.map(send, messages)) == {250}
    pooled.eventually("all are there", lambda: len(inbox(pooled, carol)) >= len(messages), 60)
    got = b"".join(inbox(pooled, carol))
    assert [got.count(b"Message-ID: <" + message_id(each).encode()) for _, each in messages] == [1] * len(messages)
    assert backends(postgres_url) <= POOL


def test_a_mailbox_is_locked_for_one_pop_session_past_the_pooler(pooled: Any) -> None:
    alice, carol = pooled.add_user(), pooled.add_user()
    for _ in range(2):
        assert submit(pooled, alice, carol.address, letter(alice.address, carol.address))[0] == 250
    pooled.eventually("both are there", lambda: len(inbox(pooled, carol)) == 2)
    first = drop(pooled, carol)
    with pytest.raises(poplib.error_proto, match="IN-USE"):
        drop(pooled, carol)
    first.dele(1)
    first.quit()
    second = drop(pooled, carol)
    assert second.stat()[0] == 1
    second.quit()


def test_the_pooler_needs_a_way_past_it(new_platform: Any, pooled_url: str) -> None:
    done = new_platform({"POSTA_DATABASE_URL": f"{pooled_url}?prepared_statements=off"}).try_posta("up", "--detach")
    assert done.returncode != 0
    assert "direct_url: expected a way past the pooler, prepared_statements is off in url" in done.stderr
