"""The POP service: `python -m services.pop`."""

from __future__ import annotations

import asyncio

from services.core.backbone import open_authenticator, open_bus, open_store, open_tls, proxies
from services.core.crowd import Limits
from services.core.service import Service, run
from services.core.store.locks import AccountLocks
from services.core.stream import Listener
from services.pop.server import Connections
from services.pop.session import Shared
from services.pop.wire import err


async def main(service: Service) -> None:
    settings = service.settings
    store, bus = await open_store(service), await open_bus(service)
    locks = AccountLocks(settings.database.direct_url or settings.database.url)
    service.on_close(locks.close)
    tls = open_tls(service)
    authenticator = await open_authenticator(service, store, bus)
    connections = Connections(
        Shared(store, bus, locks, authenticator, settings.login.plaintext_auth),
        tls,
        service.log,
        login_timeout_s=settings.pop.login_timeout_s,
        idle_timeout_s=settings.pop.idle_timeout_s,
    )
    listeners: list[Listener] = []

    async def drain(grace_s: float) -> None:
        connections.drain()
        await asyncio.gather(*(listener.close(grace_s) for listener in listeners))

    service.on_drain(drain)
    for port, implicit in ((settings.pop.port, False), (settings.pop.tls_port, True)):
        if port and (tls or not implicit):
            listener = Listener(
                connections.serve,
                service.log,
                tls=tls,
                implicit_tls=implicit,
                max_connections=settings.pop.max_connections,
                limits=Limits(settings.pop.max_per_ip, exempt=settings.limits.exempt),
                refusal=err("Too many connections", "SYS/TEMP"),
                proxy=proxies(service),
            )
            await listener.listen(settings.listen_host, port, shared=settings.reuse_port)
            service.shows_connections("pop3s" if implicit else "pop3", listener)
            listeners.append(listener)


if __name__ == "__main__":
    run("pop", main)
