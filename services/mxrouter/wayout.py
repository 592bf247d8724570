"""The relay, put together: everything between the queue and a carrier."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Awaitable, Callable
from datetime import timedelta
from random import random
from time import monotonic

from services.contracts.v1.mail_pb2 import Ticket
from services.core.bus import Bus, work_remote
from services.core.directory import Directory
from services.core.dns import Dns
from services.core.notices import Notices
from services.core.ownmail import OwnMail
from services.core.seal import Seal
from services.core.service import Service
from services.core.spool import Spool
from services.core.store.engine import Store
from services.mxrouter.attempt import Attempts
from services.mxrouter.carriage import Carrier
from services.mxrouter.destinations import Destinations
from services.mxrouter.hold import Hold
from services.mxrouter.https import Https
from services.mxrouter.keyring import Keyring
from services.mxrouter.leases import Leases
from services.mxrouter.mtasts import Policy
from services.mxrouter.outgoing import Finisher
from services.mxrouter.peers import Peers
from services.mxrouter.relay import Relay
from services.mxrouter.reporter import Reporter
from services.mxrouter.schedule import Patience
from services.mxrouter.settler import Settler

_BATCH, _SPACING_S = 64, 0.02


async def open_relay(service: Service, store: Store, bus: Bus, directory: Directory, carrier: Carrier) -> None:
    """Relay until the service drains, unless a setting says that this pod only listens."""
    settings = service.settings.relay
    if not settings.enabled:
        return
    # Named by the host for people, and by chance because a host's next process does not hold the leases of its last.
    pod = f"{socket.gethostname()}-{secrets.token_hex(3)}"
    spool = Spool(store, bus, service.log, synchronous=service.settings.database.durable_staging)
    peers = Peers(bus, pod)
    await peers.start()
    destinations = Destinations(
        monotonic, peers.share, connections=settings.connections, per_minute=settings.per_minute
    )
    settler = Settler(
        store,
        bus,
        Notices(OwnMail(spool, directory), service.settings.hostname),
        service.log,
        service.metrics,
        pod=pod,
        host=service.settings.hostname,
        patience=Patience(timedelta(seconds=settings.warn_after_s), timedelta(seconds=settings.give_up_after_s)),
        chance=random,
    )
    keyring = Keyring(store, bus, service.settings.dkim.key_secret, service.settings.srs.secret)
    await keyring.start()
    finisher = Finisher(keyring, directory, service.settings.hostname)
    hold = Hold(settings.memory)
    service.metrics.gauge("relay_memory_octets", "Octets of large messages in hand.").set_function(lambda: hold.octets)
    attempts = Attempts(
        store,
        bus,
        carrier,
        finisher,
        settler,
        destinations,
        hold,
        service.log,
        pod=pod,
        chance=random,
        spans=service.spans,
    )
    leases = Leases(store, pod, settings.lease_s, service.log)
    seal = Seal(service.settings.seal.secret, service.settings.seal.former)
    relay = Relay(store, bus, leases, attempts, destinations, settings, seal, service.log, service.metrics, pod=pod)
    await relay.start()
    service.on_drain(relay.drain)
    service.on_close(relay.close)
    service.spawn(peers.announce_forever(), "relay peers")
    service.spawn(leases.renew_forever(), "leases")
    service.spawn(leases.free_forever(), "leases of others")
    service.spawn(relay.run_forever(), "relay")
    await bus.consume_work(work_remote(), "relay", Ticket, _BATCH, relay.serve, spacing_s=_SPACING_S)


def open_reports(
    service: Service,
    store: Store,
    bus: Bus,
    directory: Directory,
    dns: Dns,
    https: Https,
    policy: Callable[[str], Awaitable[Policy | None]],
) -> None:
    """Tell domains how TLS with them goes, unless a setting says that nobody is told."""
    settings = service.settings
    if not (settings.relay.enabled and settings.relay.tls_reports):
        return
    spool = Spool(store, bus, service.log, synchronous=settings.database.durable_staging)
    reporter = Reporter(
        store,
        OwnMail(spool, directory),
        dns,
        https,
        policy,
        service.log,
        service.metrics,
        host=settings.hostname,
        port=settings.relay.port,
    )
    service.spawn(reporter.report_forever(), "tls reports")
