"""A bus for the door's tests, from the same servers as the bus's own."""

from tests.unit.core.conftest import bus, mortal_nats, nats_server

__all__ = ["bus", "mortal_nats", "nats_server"]
