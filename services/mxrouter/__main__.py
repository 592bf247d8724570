"""The MX router: `python -m services.mxrouter`. It listens; the way out comes with relaying."""

from __future__ import annotations

from services.core.backbone import open_bus, open_store, open_tls
from services.core.dns import Dns
from services.core.frontdoor import open_intake, open_smtp
from services.core.service import Service, run
from services.core.smtp.options import Options
from services.mxrouter.listener import Door
from services.mxrouter.outward import open_carrier
from services.mxrouter.wayout import open_relay


async def main(service: Service) -> None:
    settings = service.settings
    store, bus = await open_store(service), await open_bus(service)
    intake, directory = await open_intake(service, store, bus)
    options = Options(
        hostname=settings.hostname,
        max_size=settings.limits.message_size,
        max_recipients=settings.limits.recipients,
        max_connections=settings.mxrouter.max_connections,
    )
    await open_smtp(service, Door(intake), options, settings.mxrouter.port, open_tls(service))
    if not settings.relay.enabled:
        return
    dns = Dns(settings.dns.servers, settings.dns.timeout_s)
    await open_relay(service, store, bus, directory, open_carrier(service, store, dns))


if __name__ == "__main__":
    run("mxrouter", main)
