"""What the two SMTP services open besides store and bus: the way in, and the listeners."""

from __future__ import annotations

from services.core.backbone import proxies
from services.core.bus import Bus
from services.core.directory import Directory
from services.core.intake import Intake
from services.core.service import Service
from services.core.smtp.hooks import Hooks
from services.core.smtp.options import Options
from services.core.smtp.server import serve
from services.core.spool import Spool
from services.core.store.engine import Store
from services.core.tls import Tls


async def open_intake(service: Service, store: Store, bus: Bus) -> tuple[Intake, Directory]:
    """What both SMTP doors share beyond store and bus."""
    settings = service.settings
    directory = Directory(store, bus, settings.srs.secret)
    await directory.start()
    spool = Spool(
        store,
        bus,
        service.log,
        group_size=settings.spool.group_size,
        synchronous=settings.database.durable_staging,
        keep_days=settings.quarantine.keep_days,
    )
    intake = Intake(
        spool,
        bus,
        directory,
        service.log,
        service.metrics,
        door=service.name,
        host=settings.hostname,
        deadline_s=settings.scan.deadline_s,
        spans=service.spans,
    )
    return intake, directory


async def open_smtp(
    service: Service, hooks: Hooks, options: Options, port: int, tls: Tls | None, *, implicit_tls: bool = False
) -> None:
    """Listen for SMTP on `port`, unless it is 0 or implicit TLS has no certificate; drained with the service."""
    if port == 0 or (implicit_tls and tls is None):
        return
    server = await serve(
        hooks,
        options,
        log=service.log,
        host=service.settings.listen_host,
        port=port,
        shared=service.settings.reuse_port,
        tls=tls,
        implicit_tls=implicit_tls,
        proxy=proxies(service),
    )
    service.shows_messages("smtps" if implicit_tls else "smtp", server)
    service.on_drain(server.close)
