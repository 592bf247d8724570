"""The MX router: `python -m services.mxrouter`."""

from __future__ import annotations

from services.core.backbone import open_bus, open_store, open_tls
from services.core.crowd import Limits
from services.core.dns import Dns
from services.core.frontdoor import open_intake, open_smtp
from services.core.service import Service, run
from services.core.smtp.options import Options
from services.mxrouter.greylist import Greylist
from services.mxrouter.listener import Door
from services.mxrouter.outward import open_carrier, open_https
from services.mxrouter.policy import Rules
from services.mxrouter.wayout import open_relay, open_reports


async def main(service: Service) -> None:
    settings = service.settings
    store, bus = await open_store(service), await open_bus(service)
    intake, directory = await open_intake(service, store, bus)
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
    greylist = None
    if settings.mxrouter.greylist_s:
        greylist = Greylist(store, settings.mxrouter.greylist_s, service.log)
        service.spawn(greylist.tidy_forever(), "greylist")
    dns = Dns(settings.dns.servers, settings.dns.timeout_s)
    door = Door(
        intake,
        dns,
        host=settings.hostname,
        rules=Rules(
            helo_name=settings.mxrouter.require_helo_name,
            rdns=settings.mxrouter.require_rdns,
            sender_domain=settings.mxrouter.require_sender_domain,
        ),
        exempt=settings.limits.exempt,
        greylist=greylist,
        per_minute=settings.mxrouter.messages_per_minute,
    )
    await open_smtp(service, door, options, settings.mxrouter.port, open_tls(service))
    https = open_https(service, dns)
    carrier = open_carrier(service, store, dns, https)
    await open_relay(service, store, bus, directory, carrier)
    open_reports(service, store, bus, directory, dns, https, carrier.security.policy)


if __name__ == "__main__":
    run("mxrouter", main)
