"""A store and a DNS for keys."""

from collections.abc import AsyncIterator

import pytest

from tests.unit.core.dkim.resolver import Zone, serving


@pytest.fixture
async def dns_zone() -> AsyncIterator[Zone]:
    async with serving() as zone:
        yield zone
