"""The lifecycle, seen from outside: a process, its health port and its signals."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

HEAD = """
import asyncio, os
from services.core.service import Service, run
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Running:
    """A service in a process of its own, written as a script."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process, self.port = process, port
        self.log: list[dict[str, object]] = []

    async def said(self, event: str) -> dict[str, object]:
        """Read the log up to the line `event`."""
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.log.append(json.loads(line))
            if self.log[-1]["event"] == event:
                return self.log[-1]
        raise AssertionError(f"{event!r} was never said: {self.log} {await self.errors()}")

    async def get(self, path: str) -> tuple[int, str]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
        writer.close()
        return int(head.split()[1]), body

    async def errors(self) -> str:
        assert self.process.stderr is not None
        return (await self.process.stderr.read()).decode()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        return await self.process.wait()


Start = Callable[..., Awaitable[Running]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    started: list[Running] = []

    async def begin(body: str, **env: str) -> Running:
        script, port = tmp_path / "service.py", free_port()
        script.write_text(HEAD + body + '\nrun("test", main)\n')
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(script),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={
                "PYTHONPATH": os.getcwd(),
                "POSTA_DATABASE_URL": "postgresql://nowhere",
                "POSTA_LISTEN_HOST": "127.0.0.1",
                "POSTA_HEALTH_PORT": str(port),
                "POSTA_GRACE_S": "5",
                **env,
            },
        )
        started.append(Running(process, port))
        return started[-1]

    yield begin
    for each in started:
        if each.process.returncode is None:
            each.process.kill()
            await each.process.wait()


async def test_it_is_ready_when_its_checks_pass_and_drains_in_order(start: Start) -> None:
    service = await start(
        """
async def main(service: Service) -> None:
    broken = [True]
    async def check() -> None:
        if broken:
            raise OSError("no store")
    async def drain(grace_s: float) -> None:
        service.log.info("drain", grace_s=grace_s, ready=await service.readiness())
        await release.wait()
    async def loop() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            service.log.info("task ended")
    async def close(name: str) -> None:
        service.log.info("close " + name)
    release = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(10, broken.clear)
    asyncio.get_running_loop().add_signal_handler(12, release.set)
    service.ready_when("store", check)
    service.on_drain(drain)
    service.on_close(lambda: close("first"))
    service.on_close(lambda: close("second"))
    service.spawn(loop(), "loop")
"""
    )
    await service.said("started")
    assert await service.get("/healthz") == (200, "alive\n")
    assert await service.get("/readyz") == (503, "store: OSError: no store\n")
    service.signal(signal.SIGUSR1)
    while (await service.get("/readyz"))[0] != 200:
        continue
    assert "process_resident_memory_bytes" in (await service.get("/metrics"))[1]
    assert (await service.get("/else"))[0] == 404
    service.signal(signal.SIGTERM)
    drain = await service.said("drain")
    assert (drain["grace_s"], drain["ready"]) == (5.0, {"test": "draining"})
    assert await service.get("/readyz") == (503, "test: draining\n")
    assert (await service.get("/healthz"))[0] == 200
    service.signal(signal.SIGUSR2)
    assert await service.ended() == 0
    await service.said("stopped")
    events = [line["event"] for line in service.log]
    assert events[-4:] == ["task ended", "close second", "close first", "stopped"]


async def test_a_dependency_that_is_down_is_waited_for_and_told_once(start: Start) -> None:
    service = await start(
        """
async def main(service: Service) -> None:
    tries = 0
    async def attempt() -> str:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise ConnectionRefusedError("refused")
        return "here"
    service.log.info(await service.until("store", attempt))
"""
    )
    await service.said("waiting")
    assert await service.get("/readyz") == (503, "test: starting\n")
    await service.said("started")
    assert [line["event"] for line in service.log] == ["waiting", "reached", "here", "started"]
    service.signal(signal.SIGINT)
    assert await service.ended() == 0


async def test_it_can_be_stopped_while_it_waits(start: Start) -> None:
    service = await start(
        """
async def main(service: Service) -> None:
    async def never() -> None:
        raise ConnectionRefusedError("refused")
    await service.until("store", never)
"""
    )
    await service.said("waiting")
    service.signal(signal.SIGTERM)
    assert await service.ended() == 0


async def test_a_background_task_that_dies_ends_the_service_with_1(start: Start) -> None:
    service = await start(
        """
async def main(service: Service) -> None:
    async def dies() -> None:
        raise RuntimeError("broken")
    async def drain(grace_s: float) -> None:
        service.log.info("drain")
    service.on_drain(drain)
    service.spawn(dies(), "dier")
"""
    )
    died = await service.said("background task died")
    assert died["task"] == "dier"
    assert "RuntimeError: broken" in str(died["exception"])
    await service.said("drain")
    assert await service.ended() == 1


async def test_a_second_signal_ends_it_at_once(start: Start) -> None:
    service = await start(
        """
async def main(service: Service) -> None:
    async def drain(grace_s: float) -> None:
        service.log.info("drain")
        await asyncio.Event().wait()
    service.on_drain(drain)
""",
        POSTA_GRACE_S="60",
    )
    await service.said("started")
    service.signal(signal.SIGTERM)
    await service.said("drain")
    service.signal(signal.SIGTERM)
    assert await service.ended() == 1


async def test_the_grace_ends_a_drain(start: Start) -> None:
    service = await start(
        """
async def main(service: Service) -> None:
    async def drain(grace_s: float) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            service.log.info("cut")
    async def broken(grace_s: float) -> None:
        raise RuntimeError("cannot drain")
    service.on_drain(drain)
    service.on_drain(broken)
""",
        POSTA_GRACE_S="0.05",
    )
    await service.said("started")
    service.signal(signal.SIGTERM)
    assert await service.ended() == 0
    await service.said("stopped")
    assert [line["event"] for line in service.log][-3:] == ["cut", "drain failed", "stopped"]


async def test_a_port_that_is_taken_is_one_line_and_1(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        service = await start(
            """
async def main(service: Service) -> None:
    pass
""",
            POSTA_HEALTH_PORT=str(taken.getsockname()[1]),
        )
        said = await service.said("cannot start")
        assert "address already in use" in str(said["reason"])
        assert "exception" not in said
        assert await service.ended() == 1


async def test_bad_settings_are_one_line_and_2(start: Start) -> None:
    service = await start("async def main(service: Service) -> None: ...", POSTA_GRACE_S="soon")
    assert await service.ended() == 2
    assert (
        await service.errors() == "posta: POSTA_GRACE_S: expected a valid number, unable to parse string as a number\n"
    )


async def test_nonsense_on_the_health_port_harms_nobody(start: Start) -> None:
    service = await start("async def main(service: Service) -> None: ...")
    await service.said("started")
    for nonsense in (b"\r\n\r\n", b"\x16\x03\x01", b"GET\r\n\r\n", b"x" * 20_000):
        _, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(nonsense)
        writer.close()
    assert (await service.get("/healthz"))[0] == 200
    service.signal(signal.SIGTERM)
    assert await service.ended() == 0
    assert await service.errors() == ""
