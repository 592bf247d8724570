"""The threads in which large messages are looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from services.filter.examined import Examined

T = TypeVar("T")

# Few: decoders hold the interpreter, and each thread may keep an unpacked archive in memory.
_THREADS = ThreadPoolExecutor(2, thread_name_prefix="examine")


async def aside(work: Callable[[], T]) -> T:
    """The result of `work()`, done in a thread. Cancelled, the work goes on until it notices or ends."""
    return await asyncio.get_running_loop().run_in_executor(_THREADS, work)


def looked_at(examined: Examined, look: Callable[[Examined], T]) -> T | Awaitable[T]:
    """The result of `look(examined)`: here and now for a small message, of a thread for a large one."""
    return aside(lambda: look(examined)) if examined.is_large else look(examined)
