"""The filter service: `python -m services.filter`."""

from __future__ import annotations

from services.core.backbone import open_bus, open_store
from services.core.directory import Directory
from services.core.dns import Dns
from services.core.ownmail import OwnMail
from services.core.service import Service, run
from services.core.spool import Spool
from services.filter.door import Door
from services.filter.engines import auth, configured, virus_clamd
from services.filter.freshness import Freshness
from services.filter.learning import Learning, controllers
from services.filter.pipeline import Pipeline
from services.filter.reading import Reading
from services.filter.verdict import policy_of
from services.filter.warden import Warden


async def main(service: Service) -> None:
    settings = service.settings
    policy = policy_of(settings.filter, auth.rules(settings.filter))
    names = Dns(settings.dns.servers, settings.dns.timeout_s)
    engines = configured(settings.filter, settings.filter.optional, names)
    pipeline = Pipeline(engines, policy, service.log, service.metrics)
    teachable = controllers(settings.filter)
    store, bus = await open_store(service), await open_bus(service)
    learning = Learning(store, teachable, settings.filter, service.log, service.metrics)
    door = Door(
        Reading(store),
        pipeline,
        policy,
        bus,
        service.log,
        service.metrics,
        concurrency=settings.filter.concurrency,
        host=settings.hostname,
        spans=service.spans,
    )
    await door.open()
    await learning.open(bus)
    directory = Directory(store, bus)
    await directory.start()
    mail = OwnMail(Spool(store, bus, service.log, synchronous=settings.database.durable_staging), directory)
    warden = Warden(store, bus, mail, settings, service.log, service.metrics)
    service.spawn(warden.watch_forever(), "warden")
    if clamds := virus_clamd.daemons(settings.filter):
        service.spawn(Freshness(clamds, service.log, service.metrics).watch_forever(), "freshness")
    service.log.info("engines", names=[engine.name for engine in pipeline.engines])


if __name__ == "__main__":
    run("filter", main)
