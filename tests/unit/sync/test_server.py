"""The HTTP door: TLS that is renewed, ports that are taken, requests that a drain waits for."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from services.core.telemetry import logger
from services.core.tls import Certificate, ensure_dev_certificate
from services.sync.server import Door


async def _serial(port: int, ca: Path) -> tuple[bytes, str]:
    context = ssl.create_default_context(cafile=str(ca))
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    writer.write(b"GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answer = (await reader.read()).decode()
    certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return certificate, answer


async def _up(door: Door) -> asyncio.Task[None]:
    task = asyncio.create_task(door.serve())
    while True:  # the test's own time-out bounds it
        if door._server.started:
            return task
        await asyncio.sleep(0.005)


async def test_a_renewed_certificate_is_served_to_the_next_client(tmp_path: Path) -> None:
    app = FastAPI()
    app.get("/hello")(lambda: "hello")
    files = ensure_dev_certificate(tmp_path / "tls", ("localhost",))
    now = 0.0
    certificate = Certificate(files.cert, files.key, logger("test"), clock=lambda: now)
    door = Door(app, certificate.context)
    door.listen("127.0.0.1", 0)
    task = await _up(door)
    first, answer = await _serial(door.port, files.ca)
    assert answer.startswith("HTTP/1.1 200")
    assert "server:" not in answer.lower()
    shutil.copy(files.ca, tmp_path / "ca.pem")
    ensure_dev_certificate(tmp_path / "tls", ("localhost", "renewed.test"))
    now = 10.0
    second, _ = await _serial(door.port, tmp_path / "ca.pem")
    assert second != first
    await door.close(5)
    await task


async def test_a_taken_port_is_named(tmp_path: Path) -> None:
    one, two = Door(FastAPI()), Door(FastAPI())
    one.listen("127.0.0.1", 0)
    task = await _up(one)
    with pytest.raises(OSError, match=f"127.0.0.1 port {one.port}"):
        two.listen("127.0.0.1", one.port)
    await one.close(5)
    await task


async def test_a_drain_waits_for_requests_and_takes_no_new_ones() -> None:
    app, begun, end = FastAPI(), asyncio.Event(), asyncio.Event()

    @app.get("/slow")
    async def slow() -> str:
        begun.set()
        await end.wait()
        return "done"

    door = Door(app)
    door.listen("127.0.0.1", 0)
    task = await _up(door)
    async with httpx.AsyncClient() as client:
        asking = asyncio.create_task(client.get(f"http://127.0.0.1:{door.port}/slow"))
        await begun.wait()
        closing = asyncio.create_task(door.close(10))
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", door.port)
            except OSError:
                break
            writer.close()
            await asyncio.sleep(0.01)
        assert not closing.done()
        end.set()
        assert (await asking).json() == "done"
    await closing
    await task
