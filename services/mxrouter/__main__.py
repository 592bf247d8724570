"""The MX router: `python -m services.mxrouter`. It listens; the way out comes with relaying."""

from __future__ import annotations

from services.core.backbone import open_bus, open_store, open_tls
from services.core.crowd import Limits
from services.core.frontdoor import open_intake, open_smtp
from services.core.service import Service, run
from services.core.smtp.options import Options
from services.mxrouter.listener import Door


async def main(service: Service) -> None:
    settings = service.settings
    store, bus = await open_store(service), await open_bus(service)
    intake, _ = await open_intake(service, store, bus)
    options = Options(
        hostname=settings.hostname,
        max_size=settings.limits.message_size,
        max_recipients=settings.limits.recipients,
        max_connections=settings.mxrouter.max_connections,
        limits=Limits(
            per_ip=settings.mxrouter.max_per_ip,
            per_network=settings.mxrouter.max_per_network,
            per_minute=settings.mxrouter.max_per_minute,
            exempt=settings.limits.exempt,
        ),
    )
    await open_smtp(service, Door(intake), options, settings.mxrouter.port, open_tls(service))


if __name__ == "__main__":
    run("mxrouter", main)
