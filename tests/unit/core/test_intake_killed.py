"""`kill -9` of a door between the commit that holds a message and the reply: what was kept is there to be released."""

import asyncio
import sys
from pathlib import Path

import pytest

from services.contracts.v1.mail_pb2 import ScanRequest, Verdict
from services.core.bus import Bus, scan
from services.core.ids import new_spool_id
from services.core.store import accounts, blobs, quarantine
from services.core.store.engine import Store
from services.core.store.spool import due_local
from tests.unit.core.conftest import NatsServer

ROOT = Path(__file__).parents[3]
MESSAGE = b"Subject: the last word\r\n\r\nHello\r\n"
HELD = Verdict(action=Verdict.QUARANTINE, code=550, enhanced="5.7.1", text="Message refused: doubt", kind="spam")


async def offer(port: int) -> bytes:
    """Hand one message in; the last thing that the door says."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for words in (b"HELO x.test", b"MAIL FROM:<someone@x.test>", b"RCPT TO:<bob@posta.test>", b"DATA"):
        await reader.readline()
        writer.write(words + b"\r\n")
    assert (await reader.readline()).startswith(b"354")
    writer.write(MESSAGE + b".\r\n")
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


@pytest.mark.timeout(60)
async def test_a_door_that_dies_with_the_reply_on_its_lips(
    store: Store, bus: Bus, postgres_url: str, nats_server: NatsServer
) -> None:
    async with store.begin("test") as conn:
        await accounts.create_domain(conn, "posta.test")
        await accounts.create(conn, "bob@posta.test")

    async def doubt(_request: ScanRequest) -> Verdict:
        return HELD

    verdicts = await bus.respond(scan(), "filter", ScanRequest, doubt, 2)
    door = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.unit.core.dying_door", postgres_url, nats_server.url,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert door.stdout is not None
        port = int(await door.stdout.readline())
        assert await offer(port) == b""
        assert await door.wait() == -9
    finally:
        if door.returncode is None:
            door.kill()
        await verdicts.unsubscribe()

    (held,) = await quarantine.find(store)
    assert (held.subject, held.state) == ("the last word", "held")
    released = await quarantine.release(store, held.spool_id, new_spool_id(), b"", 20)
    assert released is not None
    (due,) = await due_local(store, [released.entry.spool_id])
    assert (await blobs.read(store, [due.blob_id]))[due.blob_id] == MESSAGE
