"""A queue with messages in it, and the bus's own servers."""

import pytest

from services.core.store.engine import Store
from tests.unit.core.conftest import bus, mortal_nats, nats_server
from tests.unit.mxrouter.house import House

__all__ = ["bus", "mortal_nats", "nats_server"]


@pytest.fixture
def house(store: Store) -> House:
    return House(store)
