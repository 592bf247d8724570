"""Store, bus and certificate, opened the way every service opens them."""

from __future__ import annotations

from services.core.auth.authenticator import Authenticator
from services.core.bus import Bus
from services.core.proxy import FromProxies
from services.core.reception import Preamble
from services.core.service import Service
from services.core.sni import Certificates
from services.core.store.engine import Store
from services.core.store.replica import Replica
from services.core.tls import Certificate, Tls


async def open_store(service: Service) -> Store:
    """The store, once it answers: until then the service is not ready. Closed with the service."""
    settings = service.settings.database
    store = Store(
        settings.url, settings.pool, service.metrics, settings.connect_timeout_s, settings.statement_timeout_s
    )
    if settings.read_only_url:
        store.replica = Replica(settings.read_only_url, settings.pool, service.metrics)
    service.on_close(store.close)
    service.ready_when("store", store.check)
    await service.until("store", store.check)
    return store


async def open_bus(service: Service) -> Bus:
    """The bus, whether NATS is there or not: readiness says which. Drained and closed with the service."""
    bus = await Bus.connect(service.settings.nats.url, service.name, service.log, service.settings.nats.keeping)
    connected = service.metrics.gauge("bus_connected", "1 while this process is connected to NATS.")
    connected.set_function(lambda: float(bus.connected))
    service.on_close(bus.close)
    service.ready_when("bus", bus.check)
    service.on_drain(bus.drain)
    return bus


def open_tls(service: Service) -> Tls | None:
    """What gives listeners their TLS context, re-read when the files change; None where no certificate is set."""
    settings = service.settings.tls
    if settings.cert is None or settings.key is None:
        service.log.warning("no certificate is set: no TLS is offered")
        return None
    first = Certificate(settings.cert, settings.key, service.log)
    certificates = Certificates(first, settings.domains, service.log)
    ends = service.metrics.gauge("certificate_expiry_timestamp_seconds", "When the first certificate served ends.")
    ends.set_function(certificates.ends_at)
    return certificates.context


def proxies(service: Service) -> Preamble | None:
    """What listeners hear of their peers from the proxies in front of them; None where none are set."""
    networks = service.settings.proxy.networks
    return FromProxies(networks) if networks else None


async def open_authenticator(service: Service, store: Store, bus: Bus) -> Authenticator:
    """The login checks that this process's doors share. Closed with the service."""
    authenticator = Authenticator(store, bus, service.settings, metrics=service.metrics)

    async def close() -> None:
        authenticator.close()

    service.on_close(close)
    await authenticator.start()
    return authenticator
