"""The age of signatures, from what a daemon says of itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from services.core.endpoint import Endpoint
from services.core.telemetry import Metrics, logger
from services.filter.freshness import Freshness, made_at


@asynccontextmanager
async def daemon(says: bytes) -> AsyncIterator[Endpoint]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(9) == b"zVERSION\0"
        writer.write(says)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield Endpoint("127.0.0.1", server.sockets[0].getsockname()[1])


def shown(metrics: Metrics) -> float:
    lines = metrics.exposition().decode().splitlines()
    (line,) = (line for line in lines if line.startswith("posta_filter_signatures_timestamp_seconds"))
    return float(line.split()[1])


def test_the_date_is_read() -> None:
    assert made_at("ClamAV 1.4.2/27460/Wed Nov 20 10:33:51 2024") == datetime(2024, 11, 20, 10, 33, 51, tzinfo=UTC)


@pytest.mark.parametrize("version", ["ClamAV 1.4.2", "", "a/b/yesterday", "UNKNOWN COMMAND"])
def test_what_has_no_date_is_no_date(version: str) -> None:
    with pytest.raises(ValueError, match="date"):
        made_at(version)


async def test_the_oldest_of_several_counts() -> None:
    metrics = Metrics("filter")
    async with (
        daemon(b"ClamAV 1.4.2/27460/Wed Nov 20 10:33:51 2024\0") as one,
        daemon(b"ClamAV 1.4.2/27461/Thu Nov 21 10:33:51 2024\0") as other,
    ):
        await Freshness([other, one], logger("test"), metrics).look()
    assert shown(metrics) == datetime(2024, 11, 20, 10, 33, 51, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("says", [b"", b"ClamAV 1.4.2\0", b"x" * 70_000])
async def test_a_daemon_that_tells_nothing_leaves_the_figure_as_it_was(says: bytes) -> None:
    metrics = Metrics("filter")
    async with daemon(b"ClamAV 1.4.2/27460/Wed Nov 20 10:33:51 2024\0") as good, daemon(says) as bad:
        await Freshness([good], logger("test"), metrics).look()
        before = shown(metrics)
        await Freshness([bad], logger("test"), Metrics("other")).look()
    assert shown(metrics) == before > 0
