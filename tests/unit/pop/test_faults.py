"""What goes wrong with a POP session from outside: clients, processes, connections, neighbours."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import text

from services.contracts.v1.mail_pb2 import Changed
from services.core.store.engine import Store
from services.core.store.locks import AccountLocks
from services.pop.server import Lines
from tests.unit.pop.house import NAME, PASSWORD, Client, House, expunge, house, make_account, put

REPO = Path(__file__).resolve().parents[3]
MAIL = b"Subject: hello\r\n\r\nbody\r\n"


_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
_LOCKED = """
SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
WHERE d.datname = current_database() AND locktype = 'advisory'
"""


async def until(holds: Callable[[], object]) -> None:
    """Return when `holds()` is true, awaited where it must be; the test's own time-out bounds it."""
    while True:
        found = holds()
        if await found if isinstance(found, Awaitable) else found:
            return
        await asyncio.sleep(0.005)


async def _left(there: House) -> int:
    async with there.store.query("test") as conn:
        return int((await conn.execute(text("SELECT count(*) FROM items"))).scalar_one())


async def test_a_client_that_vanishes_lets_go_of_the_maildrop(store: Store, postgres_url: str, tmp_path: Path) -> None:
    async with house(store, tmp_path, url=postgres_url) as there:
        await put(store, there.account, [MAIL])
        first = await there.login()
        assert await first.ask("DELE 1") == "+OK Marked"
        await first.vanish()
        second = await there.login()
        assert await second.ask("STAT") == f"+OK 1 {len(MAIL)}"


async def test_another_process_is_told_in_use_until_the_holder_quits(
    store: Store, postgres_url: str, tmp_path: Path
) -> None:
    account = await make_account(store)
    async with (
        house(store, tmp_path, url=postgres_url, account=account) as here,
        house(store, tmp_path, url=postgres_url, account=account) as there,
    ):
        first = await here.login()
        assert (await _try_login(there)).startswith("-ERR [IN-USE]")
        await first.ask("QUIT")
        assert (await _try_login(there)).startswith("+OK")


async def test_a_process_killed_outright_locks_nobody_out(store: Store, postgres_url: str, tmp_path: Path) -> None:
    async with house(store, tmp_path, url=postgres_url) as here:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        env = {name: value for name, value in os.environ.items() if not name.startswith("POSTA_")}
        env |= {
            "POSTA_DATABASE_URL": postgres_url, "POSTA_NATS_URL": "nats://127.0.0.1:1", "POSTA_POP_PORT": str(port),
            "POSTA_POP_TLS_PORT": "0", "POSTA_HEALTH_PORT": "0", "POSTA_LISTEN_HOST": "127.0.0.1",
            "POSTA_LOGIN_PLAINTEXT_AUTH": "true",
        }  # fmt: skip
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "services.pop", env=env, cwd=REPO)
        try:
            client = await _reached(port, here)
            await client.ask(f"USER {NAME}")
            assert (await client.ask(f"PASS {PASSWORD}")).startswith("+OK")
            assert (await _try_login(here)).startswith("-ERR [IN-USE]")
            process.send_signal(signal.SIGKILL)
            await process.wait()
            assert (await _try_login(here)).startswith("+OK")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def _reached(port: int, there: House) -> Client:
    while True:  # the test's own time-out bounds it
        try:
            client = Client(*await asyncio.open_connection("127.0.0.1", port), there.client_tls())
        except OSError:
            await asyncio.sleep(0.05)
        else:
            await client.line()
            return client


async def _try_login(there: House) -> str:
    client = await there.connect()
    await client.ask("STLS")
    await client.start_tls()
    await client.ask(f"USER {NAME}")
    return await client.ask(f"PASS {PASSWORD}")


async def test_a_drained_process_says_good_bye_and_lets_go(store: Store, postgres_url: str, tmp_path: Path) -> None:
    async with house(store, tmp_path, url=postgres_url) as there:
        await put(store, there.account, [MAIL])
        reading, new = await there.login(), await there.connect()
        assert await reading.ask("DELE 1") == "+OK Marked"
        there.connections.drain()
        bye = "-ERR [SYS/TEMP] The server is going down, nothing was deleted"
        assert [await reading.line(), await reading.line()] == [bye, ""]
        assert [await new.line(), await new.line()] == [bye, ""]
        await there.listener.close(10)
        assert await there.shared.locks.acquire(there.account)
    assert await _left(there) == 1


async def test_a_drain_waits_for_the_update(store: Store, postgres_url: str, tmp_path: Path) -> None:
    async with house(store, tmp_path, url=postgres_url) as there:
        await put(store, there.account, [MAIL, MAIL + b"2"])
        client = await there.login()
        await client.ask("DELE 1")
        async with store.begin("test") as conn:  # another writer holds the account: the update has to wait
            await conn.execute(text("SELECT FROM account_seq FOR UPDATE"))
            client.send(b"QUIT\r\n")
            await _blocked_writer(postgres_url)
            there.connections.drain()
            closing = asyncio.create_task(there.listener.close(10))
            done, _ = await asyncio.wait((closing,), timeout=0.05)
            assert not done
        assert await client.line() == "+OK 1 messages deleted"
        await closing
        assert await _left(there) == 1


async def _blocked_writer(url: str) -> None:
    conn = await asyncpg.connect(url)
    try:
        await until(lambda: conn.fetchval(_WAITING))
    finally:
        await conn.close()


async def test_what_came_in_while_good_bye_was_said_is_not_done(
    store: Store, postgres_url: str, tmp_path: Path
) -> None:
    async with house(store, tmp_path, url=postgres_url) as there:
        await put(store, there.account, [MAIL])
        client = await there.login()
        await client.ask("DELE 1")
        [waiting] = there.connections.waiting
        assert isinstance(waiting, Lines)
        waiting._stream.data_received(b"QUIT\r\n")  # arrived, and its session not yet woken
        there.connections.drain()
        assert "nothing was deleted" in await client.line()
        assert await client.line() == ""
    assert await _left(there) == 1


async def test_the_lock_is_taken_again_when_its_connection_is_lost(
    store: Store, postgres_url: str, tmp_path: Path
) -> None:
    async with house(store, tmp_path, url=postgres_url) as there:
        client = await there.login()
        other = AccountLocks(postgres_url)
        admin = await asyncpg.connect(postgres_url)
        ended = await admin.fetch(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'posta-locks'"
        )
        assert len(ended) == 1
        await until(lambda: admin.fetchval(_LOCKED))
        await admin.close()
        assert not await other.acquire(there.account)
        assert await client.ask("STAT") == "+OK 0 0"
        assert await client.ask("QUIT") == "+OK Bye"
        assert await other.acquire(there.account)
        await other.close()


async def test_a_login_given_up_in_the_middle_holds_nothing(store: Store, postgres_url: str) -> None:
    account = await make_account(store)
    mine, other = AccountLocks(postgres_url), AccountLocks(postgres_url)
    await mine.acquire(account)
    await mine.release(account)
    for turns in range(12):
        asking = asyncio.create_task(mine.acquire(account))
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait((asking,))
        if not asking.cancelled():
            await mine.release(account)
        await until(lambda: other.acquire(account))
        await other.release(account)
    await mine.close()
    await other.close()


async def test_pop_deletes_and_the_others_hear_of_it(store: Store, postgres_url: str, tmp_path: Path) -> None:
    async with house(store, tmp_path, url=postgres_url) as there:
        placed = await put(store, there.account, [MAIL, MAIL + b"2", MAIL + b"3"])
        client = await there.login()
        await client.ask("DELE 1")
        await client.ask("DELE 3")
        assert there.hints.sent == []
        assert await client.ask("QUIT") == "+OK 2 messages deleted"
        [(subject, message)] = there.hints.sent
        assert isinstance(message, Changed)
        assert (subject, message.account_id, message.fid) == (
            f"posta.v1.changed.{there.account}", there.account, placed[0].fid,
        )  # fmt: skip
        async with store.query("test") as conn:
            last = (await conn.execute(text("SELECT last_cn FROM account_seq"))).scalar_one()
            buried = (await conn.execute(text("SELECT array_agg(uid ORDER BY uid) FROM tombstones"))).scalar_one()
        assert message.cn == last
        assert buried == [placed[0].uid, placed[2].uid]


async def test_a_folder_emptied_by_another_reader_is_met_a_message_at_a_time(
    store: Store, postgres_url: str, tmp_path: Path
) -> None:
    async with house(store, tmp_path, url=postgres_url) as there:
        placed = await put(store, there.account, [MAIL + b"%d" % n for n in range(40)])
        client = await there.login()
        await expunge(store, there.account, placed[:-1])
        # more errors than a stranger is allowed
        assert {await client.ask(f"RETR {n}") for n in range(1, 40)} == {"-ERR No such message"}
        assert await client.body("RETR 40") == MAIL + b"39\r\n"
        await client.ask("DELE 40")
        assert await client.ask("QUIT") == "+OK 1 messages deleted"


async def test_an_account_deleted_under_a_session(store: Store, postgres_url: str, tmp_path: Path) -> None:
    from services.core.store import accounts

    async with house(store, tmp_path, url=postgres_url) as there:
        await put(store, there.account, [MAIL])
        client = await there.login()
        async with store.begin("test") as conn:
            await accounts.delete(conn, there.account)
        assert await client.ask("RETR 1") == "-ERR No such message"
        await client.ask("DELE 1")
        assert await client.ask("QUIT") == "+OK Bye"
        # known to this process for some minutes more, unless it was announced
        assert (await _try_login(there)).startswith("-ERR [AUTH]")


async def test_who_reads_slowly_is_not_sent_more_than_is_in_flight(
    store: Store, postgres_url: str, tmp_path: Path
) -> None:
    async with house(store, tmp_path, url=postgres_url) as there:
        big = b"Subject: big\r\n\r\n" + (b"x" * 70 + b"\r\n") * 1000
        await put(store, there.account, [big + b"%d\r\n" % n for n in range(300)])
        client = await there.login()
        transport = client.writer.transport
        transport.pause_reading()  # type: ignore[attr-defined]  # asyncio's stubs call every transport a WriteTransport
        client.send(b"".join(b"RETR %d\r\n" % n for n in range(1, 301)))
        [stream] = there.listener.streams
        await until(lambda: stream._resumed is not None)
        for _ in range(50):
            await asyncio.sleep(0)
        assert stream._transport is not None
        assert stream._transport.get_write_buffer_size() < 256 << 10
        transport.resume_reading()  # type: ignore[attr-defined]  # as above
        for n in range(300):
            assert (await client.line()).startswith("+OK")
            while (line := await client.line()) != ".":
                last = line
            assert last == str(n)


async def test_who_does_not_read_at_all_loses_the_maildrop(store: Store, postgres_url: str, tmp_path: Path) -> None:
    async with house(store, tmp_path, url=postgres_url, idle_timeout_s=0.5) as there:
        await put(store, there.account, [b"Subject: huge\r\n\r\n" + b"x" * (24 << 20)])
        client = await there.login()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # as above
        client.send(b"RETR 1\r\n")
        await until(lambda: not there.listener.connections)
        assert await there.shared.locks.acquire(there.account)
        await client.vanish()


async def test_silence_is_answered_by_silence(store: Store, postgres_url: str, tmp_path: Path) -> None:
    # RFC 1939 3: no response is sent, nothing is deleted
    async with house(store, tmp_path, url=postgres_url, idle_timeout_s=0.3) as there:
        await put(store, there.account, [MAIL])
        client = await there.login()
        await client.ask("DELE 1")
        client.send(b"NO")  # half a command keeps nobody awake
        assert await client.line() == ""
        assert await _left(there) == 1
        assert await there.shared.locks.acquire(there.account)


@pytest.mark.parametrize("octets", [b"x" * 20_000, b"USER " + b"x" * 13_000 + b"\r\n"])
async def test_an_endless_line_ends_the_session(octets: bytes, store: Store, postgres_url: str, tmp_path: Path) -> None:
    async with house(store, tmp_path, url=postgres_url) as there:
        client = await there.connect()
        client.send(octets)
        assert await client.line() == "-ERR Line too long"
        assert await client.line() == ""


@pytest.mark.parametrize("octets", [b"STLS\r\nUSER mallory\r\n", b"STLS\r\nUS", b"STLS\r\n\r\n"])
async def test_plain_text_behind_stls_ends_the_session(
    octets: bytes, store: Store, postgres_url: str, tmp_path: Path
) -> None:
    async with house(store, tmp_path, url=postgres_url) as there:
        client = await there.connect()
        client.send(octets)
        assert await client.line() == "-ERR Plain text behind STLS"
        assert await client.line() == ""


async def test_a_stranger_may_err_only_so_often(store: Store, postgres_url: str, tmp_path: Path) -> None:
    async with house(store, tmp_path, url=postgres_url) as there:
        client = await there.connect()
        for _ in range(20):
            assert await client.ask("GET / HTTP/1.1") == "-ERR Unknown command"
        assert await client.line() == "-ERR Too many errors"
        assert await client.line() == ""


async def test_connections_are_limited(store: Store, postgres_url: str, tmp_path: Path) -> None:
    async with house(store, tmp_path, url=postgres_url, max_per_ip=2) as there:
        first, _second = await there.connect(), await there.connect()
        third = Client(*await asyncio.open_connection("127.0.0.1", there.listener.port), there.client_tls())
        assert await third.line() == "-ERR [SYS/TEMP] Too many connections"
        assert await third.line() == ""
        assert await first.ask("QUIT") == "+OK Bye"
        assert await first.line() == ""
        await until(lambda: there.listener.connections == 1)
        await there.connect()


async def test_a_client_that_said_all_it_wants_to_say_still_hears(
    store: Store, postgres_url: str, tmp_path: Path
) -> None:
    async with house(store, tmp_path, url=postgres_url) as there:
        client = await there.connect()
        client.send(b"CAPA\r\nQUIT\r\n")
        client.writer.write_eof()
        assert (await client.reader.read()).endswith(b".\r\n+OK Bye\r\n")
