"""The sync service: `python -m services.sync`."""

from __future__ import annotations

from services.core.backbone import open_bus, open_store, open_tls
from services.core.dns import Dns
from services.core.review import Review
from services.core.seal import Seal
from services.core.service import Service, run
from services.core.spool import Spool
from services.sync import admin, autoconfig, checkup, mtasts, outbound, quarantine, review, signing, tokens, traces
from services.sync.app import application
from services.sync.doors import doors
from services.sync.guard import Guard
from services.sync.meter import Meter
from services.sync.server import Door


async def main(service: Service) -> None:
    settings = service.settings
    store, bus = await open_store(service), await open_bus(service)
    held = Review(store, bus, Spool(store, bus, service.log), service=service.name, host=settings.hostname)

    def resolver() -> Dns:
        return Dns(settings.dns.servers, settings.dns.timeout_s)

    parts = (
        signing.keys(resolver, settings.dkim.key_secret),
        checkup.doctor(resolver, settings),
        quarantine.part(held),
        outbound.routes_part(Seal(settings.seal.secret, settings.seal.former)),
        tokens.part,
        traces.part,
    )
    guard = Guard(store, settings.sync.admin_token, settings.login, service.log)
    app = application(
        (
            admin.router(store, bus, guard, *parts),
            review.router(store, held),
            autoconfig.router(doors(settings.sync, settings.hostname)),
            mtasts.router(settings.sync, settings.hostname),
        )
    )
    app.add_middleware(Meter, metrics=service.metrics)
    tls = open_tls(service)
    for port, certificate in ((settings.sync.port, None), (settings.sync.tls_port if tls else 0, tls)):
        if port:
            door = Door(app, certificate)
            door.listen(settings.listen_host, port, shared=settings.reuse_port)
            service.on_drain(door.close)
            service.spawn(door.serve(), f"http {port}")


if __name__ == "__main__":
    run("sync", main)
