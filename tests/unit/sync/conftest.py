"""The sync service's application on a real store, and clients that have the admin's token or have not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from services.core.bus import Bus
from services.core.dns import Dns
from services.core.review import Review
from services.core.seal import Seal
from services.core.settings import Settings, Sync
from services.core.spool import Spool
from services.core.store.engine import Store
from services.core.telemetry import logger
from services.sync import admin, autoconfig, checkup, outbound, quarantine, review, signing, tokens, traces
from services.sync.app import application
from services.sync.doors import doors
from services.sync.guard import Guard
from tests.unit.core.conftest import bus, nats_server

__all__ = ["bus", "nats_server"]

TOKEN = "s3cret-token"
SEAL = SecretStr("sealing wax")
SETTINGS = Sync(public_hostname="mail.posta.test", imap_tls_port=2993, imap_port=2143, pop_port=0, submission_port=2587)


@pytest.fixture
async def no_bus() -> AsyncIterator[Bus]:
    """A bus whose NATS is away: provisioning goes on without it."""
    bus = await Bus.connect("nats://127.0.0.1:1", "test")
    yield bus
    await bus.close()


def make(
    store: Store,
    bus: Bus,
    token: str | None = TOKEN,
    resolver: Callable[[], Dns] = Dns,
    seal: SecretStr | None = SEAL,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> FastAPI:
    held = Review(store, bus, Spool(store, bus, logger("test")), service="sync", host="sync.test")
    secret, keys = SecretStr(token) if token else None, signing.keys(resolver, None)
    parts = (
        checkup.doctor(resolver, Settings()),
        quarantine.part(held),
        outbound.routes_part(Seal(seal)),
        tokens.part,
        traces.part,
    )
    guard = Guard(store, secret, Settings().login, logger("sync"), sleep)
    return application(
        (
            admin.router(store, bus, guard, keys, *parts),
            review.router(store, held),
            autoconfig.router(doors(SETTINGS, "localhost")),
        )
    )


def client_of(app: FastAPI, token: str | None = TOKEN) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {token}"} if token is not None else None
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://sync.test", headers=headers)


@pytest.fixture
async def client(store: Store, no_bus: Bus) -> AsyncIterator[httpx.AsyncClient]:
    """The admin."""
    async with client_of(make(store, no_bus)) as client:
        yield client
