"""A bus for a verb: its connection is nobody's news."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.core.bus import Bus
from services.core.telemetry import silent

NOWHERE = "nats://127.0.0.1:1"


@asynccontextmanager
async def bus_at(url: str) -> AsyncIterator[Bus]:
    """A bus for the block, connected if NATS is there; nothing of it is logged to stdout, where the answer goes.

    `url`: empty where no service runs to be told.
    """
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    bus = await Bus.connect(url or NOWHERE, "posta", silent())
    try:
        yield bus
    finally:
        await bus.close()
        logging.disable(before)
