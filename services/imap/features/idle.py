"""IDLE (RFC 2177): told at once, by hint, what the next command would have told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from services.imap.feature import AUTHENTICATED, Command, Feature, State
from services.imap.session import Session
from services.imap.wire.cursor import Cursor
from services.imap.wire.responses import Bad, Continue, Ok, Response


async def idle(session: Session, _: None) -> AsyncGenerator[Response, None]:
    """Tell what happens in the selected folder until the client says DONE."""
    yield Continue("idling")
    line = asyncio.create_task(session.channel.read_line())
    # One thing to wait for: a hint and the client's line both ring it.
    line.add_done_callback(lambda _: session.wake.set())
    watch = session.watch
    if watch is not None:
        watch.pushed(0)
    try:
        while not line.done():
            if session.opened is not None:
                news = await session.caught_up(expunges=True)
                for response in news:
                    yield response
                if watch is not None:
                    watch.pushed(len(news))
                if session.state is State.LOGOUT:
                    return
            while not line.done() and not await _rung(session):
                yield Ok("Still here.", untagged=True)
    finally:
        line.cancel()
        await asyncio.wait((line,))
    if line.result().strip().upper() != b"DONE":
        yield Bad("DONE was expected.")
        return
    yield Ok("Idled.")


async def _rung(session: Session) -> bool:
    """Whether it rang; False once nothing has for so long that the client, and what is between, should hear of us."""
    try:
        async with asyncio.timeout(session.services.idle_notify_s or None):
            await session.wake.wait()
    except TimeoutError:
        return False
    session.wake.clear()
    return True


FEATURE = Feature(("IDLE",), rfc=2177, commands=(Command("IDLE", AUTHENTICATED, Cursor.end, idle),))
