"""Mail of users to other servers, all of it through one smarthost: handed in, relayed, taken by a sink.

Both sides have it on disk before their 250, both hold at most 20 connections to a destination, none of them has TLS to
the sink. The clock of `relay` runs from the first message handed in to the last one that the sink has taken; that of
`drain` begins when all have been handed in to a sink that keeps everybody waiting, and it begins to talk.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from bench import cpu
from bench.handin import hand_in, letters
from bench.measured import note
from bench.sides import Ours, Rival, Side
from bench.sink import Sink, sink

_LONGEST_S = 300.0


def measure(results: Path, sides: Sequence[Side], number: int, runs: int) -> None:
    """Messages of 4 KiB to one domain, and to fifty."""
    asyncio.run(_measure(results, sides, number, runs))


async def _measure(results: Path, sides: Sequence[Side], number: int, runs: int) -> None:
    async with sink() as there:
        for side in sides:
            lead(side, there.port)
            await hand_in(side, letters(50, ["warm.example"]))
            await there.has(there.messages + 50, 30)
        for _ in range(runs):
            for domains in (1, 50):
                for side in sides:
                    await asyncio.sleep(2)
                    await once(results, side, there, number, [f"d{n}.example" for n in range(domains)])
                    await asyncio.sleep(2)
                    await drain(results, side, there, number, [f"d{n}.example" for n in range(domains)])


def lead(side: Side, port: int) -> None:
    """Let all mail for elsewhere go to that port of this machine."""
    match side:
        case Ours():
            side.posta("route", "add", "127.0.0.1", "--port", str(port))
        case Rival():
            side.postconf(f"relayhost=[127.0.0.1]:{port}")


async def once(results: Path, side: Side, there: Sink, number: int, domains: Sequence[str], **params: object) -> None:
    """Hand in so many and wait for the sink to have them."""
    shown = {"domains": len(domains), **params}
    had, used, began = there.messages, cpu.seconds(side), time.perf_counter()
    await hand_in(side, letters(number, domains))
    accepted_s = time.perf_counter() - began
    arrived = await there.has(had + number, _LONGEST_S)
    took_s, used = time.perf_counter() - began, cpu.seconds(side) - used
    note(results, side.name, "relay", "accepted", number / accepted_s, "msg/s", **shown)
    note(results, side.name, "relay", "relayed", (there.messages - had) / took_s, "msg/s", **shown)
    note(results, side.name, "relay", "server_cpu_per_msg", 1000 * used / number, "ms", **shown)
    if not arrived:
        note(results, side.name, "relay", "missing", had + number - there.messages, "msg", **shown)


async def drain(results: Path, side: Side, there: Sink, number: int, domains: Sequence[str]) -> None:
    """Hand in so many while the sink is silent; then let it speak, and wait for it to have them."""
    shown = {"domains": len(domains)}
    had = there.messages
    there.pause()
    await hand_in(side, letters(number, domains))
    await asyncio.sleep(2)
    used, began = cpu.seconds(side), time.perf_counter()
    there.go_on()
    arrived = await there.has(had + number, _LONGEST_S)
    took_s, used = time.perf_counter() - began, cpu.seconds(side) - used
    note(results, side.name, "drain", "relayed", (there.messages - had) / took_s, "msg/s", **shown)
    note(results, side.name, "drain", "server_cpu_per_msg", 1000 * used / number, "ms", **shown)
    if not arrived:
        note(results, side.name, "drain", "missing", had + number - there.messages, "msg", **shown)
