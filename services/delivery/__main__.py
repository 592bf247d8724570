"""The delivery service: `python -m services.delivery`."""

from __future__ import annotations

from services.contracts.v1.mail_pb2 import Ticket
from services.core.backbone import open_bus, open_store
from services.core.bus import work_local
from services.core.directory import Directory
from services.core.notices import Notices
from services.core.ownmail import OwnMail
from services.core.service import Service, run
from services.core.spool import Spool
from services.delivery.consumer import Consumer
from services.delivery.pulse import Pulse


async def main(service: Service) -> None:
    settings = service.settings
    store, bus = await open_store(service), await open_bus(service)
    spool = Spool(store, bus, service.log, synchronous=settings.database.durable_staging)
    directory = Directory(store, bus, settings.srs.secret)
    await directory.start()
    consumer = Consumer(
        store,
        bus,
        Notices(OwnMail(spool, directory), settings.hostname),
        service.log,
        service.metrics,
        host=settings.hostname,
        spans=service.spans,
    )
    service.on_close(consumer.close)
    service.spawn(Pulse(store, bus, service.log, service.metrics).run(), "pulse")
    service.spawn(spool.sweep_forever(settings.spool.sweep_s), "sweeper")
    await bus.consume_work(
        work_local(),
        "delivery",
        Ticket,
        settings.delivery.batch,
        consumer.serve,
        settings.delivery.ack_wait_s,
        settings.delivery.spacing_s,
    )


if __name__ == "__main__":
    run("delivery", main)
