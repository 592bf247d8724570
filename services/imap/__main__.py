"""The IMAP service: `python -m services.imap`."""

from __future__ import annotations

import asyncio

from services.core.backbone import open_authenticator, open_bus, open_store, open_tls, proxies
from services.core.crowd import Limits
from services.core.service import Service, run
from services.core.stream import Listener
from services.core.training import Teacher
from services.imap.feature import Registry
from services.imap.features import FEATURES, OFFERS
from services.imap.notifier import Notifier
from services.imap.server import Connections
from services.imap.session import Services

REFUSAL = b"* BYE [UNAVAILABLE] Too many connections.\r\n"


async def main(service: Service) -> None:
    settings = service.settings
    store, bus = await open_store(service), await open_bus(service)
    tls = open_tls(service)
    authenticator = await open_authenticator(service, store, bus)
    notifier = Notifier(bus, store, service.log, service.spans)
    service.spawn(notifier.run(), "notifier")
    services = Services(
        store,
        authenticator,
        notifier,
        service.log,
        Registry(FEATURES),
        OFFERS,
        teacher=Teacher(store, bus, service.log),
        message_size=settings.limits.message_size,
        plaintext_auth=settings.login.plaintext_auth,
        starttls=tls is not None,
        idle_notify_s=settings.imap.idle_notify_s,
    )
    connections = Connections(
        services,
        tls,
        login_timeout_s=settings.imap.login_timeout_s,
        idle_timeout_s=settings.imap.idle_timeout_s,
    )
    listeners: list[Listener] = []

    async def drain(grace_s: float) -> None:
        await asyncio.gather(connections.drain(grace_s), *(listener.close(grace_s) for listener in listeners))

    service.on_drain(drain)
    for port, implicit in ((settings.imap.port, False), (settings.imap.tls_port, True)):
        if port and (tls or not implicit):
            listener = Listener(
                connections.serve,
                service.log,
                tls=tls,
                implicit_tls=implicit,
                max_connections=settings.imap.max_connections,
                limits=Limits(settings.imap.max_per_ip, exempt=settings.limits.exempt),
                refusal=REFUSAL,
                proxy=proxies(service),
            )
            await listener.listen(settings.listen_host, port)
            service.shows_connections("imaps" if implicit else "imap", listener)
            listeners.append(listener)


if __name__ == "__main__":
    run("imap", main)
