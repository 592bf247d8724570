"""A queue with messages in it, the bus's own servers, and a world to mail to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
import uvloop

from services.core.store.engine import Store
from services.dev.dns import Zones, serve
from tests.unit.core.conftest import bus, mortal_nats, nats_server
from tests.unit.mxrouter.house import House
from tests.unit.mxrouter.world import World

__all__ = ["bus", "mortal_nats", "nats_server"]


@pytest.fixture
def house(store: Store) -> House:
    return House(store)


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What touches sockets and TLS is tried on both loops."""
    both = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
    return both if item.path.name in ("test_client.py", "test_security.py") else {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    port, server, transport = await serve(Zones(tmp_path))
    world = World(tmp_path, port)
    yield world
    await world.close()
    server.close()
    transport.close()
