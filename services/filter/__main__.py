"""The filter service: `python -m services.filter`."""

from __future__ import annotations

from services.core.backbone import open_bus, open_store
from services.core.directory import Directory
from services.core.ownmail import OwnMail
from services.core.service import Service, run
from services.core.spool import Spool
from services.filter.door import Door
from services.filter.engines import configured
from services.filter.pipeline import Pipeline
from services.filter.reading import Reading
from services.filter.verdict import policy_of
from services.filter.warden import Warden


async def main(service: Service) -> None:
    settings, policy = service.settings, policy_of(service.settings.filter)
    pipeline = Pipeline(configured(settings.filter), policy, service.log, service.metrics)
    store, bus = await open_store(service), await open_bus(service)
    door = Door(
        Reading(store),
        pipeline,
        policy,
        bus,
        service.log,
        service.metrics,
        concurrency=settings.filter.concurrency,
        host=settings.hostname,
    )
    await door.open()
    directory = Directory(store, bus)
    await directory.start()
    mail = OwnMail(Spool(store, bus, service.log, synchronous=settings.database.durable_staging), directory)
    warden = Warden(store, bus, mail, settings, service.log, service.metrics)
    service.spawn(warden.watch_forever(), "warden")
    service.log.info("engines", names=[engine.name for engine in pipeline.engines])


if __name__ == "__main__":
    run("filter", main)
