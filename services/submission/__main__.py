"""The submission service: `python -m services.submission`."""

from __future__ import annotations

from services.core.backbone import open_authenticator, open_bus, open_store, open_tls
from services.core.crowd import Limits
from services.core.frontdoor import open_intake, open_smtp
from services.core.ownmail import OwnMail
from services.core.service import Service, run
from services.core.smtp.options import Options
from services.core.spool import Spool
from services.submission.allowance import Allowance
from services.submission.door import Door


async def main(service: Service) -> None:
    settings = service.settings
    store, bus = await open_store(service), await open_bus(service)
    intake, directory = await open_intake(service, store, bus)
    mail = OwnMail(Spool(store, bus, service.log, synchronous=settings.database.durable_staging), directory)
    allowance = Allowance(store, bus, mail, settings, service.log, service.metrics)
    await allowance.start()
    door = Door(
        await open_authenticator(service, store, bus),
        directory,
        intake,
        allowance,
        host=settings.hostname,
        plaintext_auth=settings.login.plaintext_auth,
        require_known_from=settings.submission.require_known_from,
    )
    options = Options(
        hostname=settings.hostname,
        max_size=settings.limits.message_size,
        max_recipients=settings.limits.recipients,
        max_connections=settings.submission.max_connections,
        limits=Limits(settings.submission.max_per_ip, exempt=settings.limits.exempt),
        require_auth=True,
    )
    tls = open_tls(service)
    await open_smtp(service, door, options, settings.submission.port, tls)
    await open_smtp(service, door, options, settings.submission.tls_port, tls, implicit_tls=True)


if __name__ == "__main__":
    run("submission", main)
