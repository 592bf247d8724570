"""The filter service: `python -m services.filter`."""

from __future__ import annotations

from services.core.backbone import open_bus, open_store
from services.core.service import Service, run
from services.filter.door import Door
from services.filter.engines import configured
from services.filter.learning import Learning, controllers
from services.filter.pipeline import Pipeline
from services.filter.reading import Reading
from services.filter.verdict import Policy


async def main(service: Service) -> None:
    settings, policy = service.settings, Policy()
    pipeline = Pipeline(configured(settings.filter, settings.filter.optional), policy, service.log, service.metrics)
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
    )
    await door.open()
    await learning.open(bus)
    service.log.info("engines", names=[engine.name for engine in pipeline.engines])


if __name__ == "__main__":
    run("filter", main)
