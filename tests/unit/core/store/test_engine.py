"""Connections to a Postgres that does not answer."""

from __future__ import annotations

import pytest

from services.core.store.engine import Store, StoreUnavailable


async def test_a_statement_that_is_not_answered_in_its_time_is_cancelled(postgres_url: str) -> None:
    store = Store(postgres_url, pool=1, statement_timeout_s=0.2)
    try:
        with pytest.raises(StoreUnavailable):
            async with store.driver("test") as conn:
                await conn.fetchval("SELECT pg_sleep(3600)")
        async with store.driver("test") as conn:
            assert await conn.fetchval("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(3600)'") == 0
    finally:
        await store.close()
