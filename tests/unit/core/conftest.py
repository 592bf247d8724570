"""A NATS server of the test run's own, which a test may kill, wipe and start again."""

import asyncio
import contextlib
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from services.core.bus import Bus


class NatsServer:
    """`nats-server` with JetStream on a free port of 127.0.0.1; the port stays the same when it is started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"nats://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        binary = Path(sys.executable).with_name("nats-server")
        command = [str(binary), "-js", "-a", "127.0.0.1", "-p", str(self.port), "-sd", str(self.folder)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def wipe(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


async def up(bus: Bus) -> None:
    """Return when the bus says it is well; the test's own timeout bounds it."""
    while True:
        with contextlib.suppress(Exception):
            return await bus.check()
        await asyncio.sleep(0.02)


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def mortal_nats(tmp_path: Path) -> Iterator[NatsServer]:
    """A server for tests that kill it."""
    server = NatsServer(tmp_path / "nats")
    yield server
    server.kill()


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    bus = await Bus.connect(nats_server.url, "test")
    await up(bus)
    # The server is the session's: what other tests have left to do is nothing to wait for in this one.
    for stream in ("WORK", "TRACE"):
        await bus.api(f"STREAM.PURGE.{stream}", {})
    yield bus
    await bus.close()
