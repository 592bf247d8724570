"""The way out, opened from the settings."""

from __future__ import annotations

from typing import Final

from services.core.dns import Dns
from services.core.service import Service
from services.core.store.engine import Store
from services.core.store.tlsresults import TlsResult
from services.mxrouter.client import Client
from services.mxrouter.https import Https
from services.mxrouter.link import Patience
from services.mxrouter.mtasts import Policies
from services.mxrouter.opening import Opener
from services.mxrouter.pool import Pool
from services.mxrouter.resolve import Resolver
from services.mxrouter.security import Security, trusting
from services.mxrouter.tally import Tally

_KEEP_S: Final = 60.0


def open_https(service: Service, dns: Dns) -> Https:
    """What asks the web servers of other domains. Raises OSError for a `relay.ca` that is none."""
    relay = service.settings.relay
    return Https(Resolver(dns, (), ipv6=relay.ipv6), trusting(relay.ca), private=relay.private_https)


def open_carrier(service: Service, store: Store, dns: Dns, https: Https) -> Client:
    """What carries letters to other servers. Closed with the service. Raises OSError for a `relay.ca` that is none."""
    settings, relay = service.settings, service.settings.relay
    resolver = Resolver(dns, (settings.hostname, *relay.ourselves), ipv6=relay.ipv6)
    tally = Tally(service.metrics)
    trust = trusting(relay.ca)

    def failed(domain: str, result: str) -> None:
        tally.count(TlsResult(domain, "sts", "", result))

    policies = Policies(dns, https, failed) if relay.mta_sts else None
    security = Security(dns if relay.dane else None, policies, trust, tally)
    patience = Patience(
        connect_s=relay.connect_timeout_s, command_s=relay.command_timeout_s, message_s=relay.message_timeout_s
    )
    opener = Opener(settings.hostname, security, patience, frozenset(w.upper() for w in relay.discard_ehlo_keywords))
    pool = Pool(relay.reuse_idle_s, relay.reuse_messages)
    client = Client(
        resolver,
        security,
        opener,
        pool,
        service.log,
        service.metrics,
        port=relay.port,
        at_once=relay.recipients_at_once,
    )
    service.on_close(client.close)
    service.spawn(tally.keep_all(store, service.log, _KEEP_S), "tls results")
    return client
