"""A real MX door in a process of its own that dies by SIGKILL the moment a message is held, before it can say so."""

import asyncio
import os
import signal
import sys

from services.core.bus import Bus
from services.core.directory import Directory
from services.core.dns import Dns
from services.core.intake import Intake
from services.core.settings import LOOPBACK
from services.core.smtp.options import Options
from services.core.smtp.server import serve
from services.core.spool import Spool
from services.core.store.engine import Store
from services.core.store.quarantine import Held
from services.core.telemetry import Metrics, configure_logs
from services.mxrouter.listener import Door
from services.mxrouter.policy import Rules


class Dying(Spool):
    """Keeps what it is given, and then is no more."""

    async def hold(self, held: Held) -> None:
        await super().hold(held)
        os.kill(os.getpid(), signal.SIGKILL)


async def main(database_url: str, nats_url: str) -> None:
    log, store = configure_logs("test", "critical"), Store(database_url)
    bus = await Bus.connect(nats_url, "dying")
    directory = Directory(store, bus)
    await directory.start()
    intake = Intake(
        Dying(store, bus, log), bus, directory, log, Metrics("dying"), door="mx", host="mx.posta.test", deadline_s=10
    )
    door = Door(intake, Dns(), host="mx.posta.test", rules=Rules(), exempt=LOOPBACK)
    server = await serve(door, Options(hostname="mx.posta.test"), log=log)
    sys.stdout.write(f"{server.addresses[0].port}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
