"""uvicorn under our own lifecycle: it neither takes the signals nor ends the process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from services.core.tls import Tls, renewing


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # core/service has them


class Door:
    """The application on one port."""

    def __init__(self, app: FastAPI, tls: Tls | None = None) -> None:
        self._config = uvicorn.Config(
            app, log_config=None, access_log=False, server_header=False, lifespan="off", timeout_keep_alive=30
        )
        self._config.load()
        self._config.ssl = renewing(tls) if tls else None
        self._server = _Server(self._config)
        self._socket: socket.socket | None = None
        self._ended = asyncio.Event()

    def listen(self, host: str, port: int, *, shared: bool = False) -> None:
        """Take the port, `shared` with other processes; raises `OSError` when somebody has it.

        uvicorn itself would end the process.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        taken = socket.socket(family, socket.SOCK_STREAM)
        try:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            taken.bind((host, port))
        except OSError as error:
            taken.close()
            raise OSError(error.errno, f"{error.strerror}: {host} port {port}") from error
        self._socket = taken

    @property
    def port(self) -> int:
        """Where it listens, once it does."""
        return int(self._socket.getsockname()[1]) if self._socket else 0

    async def serve(self) -> None:
        """Answer requests until `close`; after `listen`."""
        try:
            await self._server.serve([self._socket] if self._socket else None)
        finally:
            self._ended.set()

    async def close(self, grace_s: float) -> None:
        """Stop accepting and let requests finish, for nine tenths of the grace at most."""
        self._config.timeout_graceful_shutdown = max(1, int(grace_s * 0.9))
        self._server.should_exit = True
        await self._ended.wait()
