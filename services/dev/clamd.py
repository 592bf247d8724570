"""The embedded clamd: Debian's program with a folder of its own, with signatures whether or not it was given any."""

import signal
from dataclasses import dataclass
from pathlib import Path

from services.dev import probe
from services.dev.child import Program
from services.dev.home import Home, write
from services.dev.place import Room, room
from services.dev.plan import LISTEN_HOST
from services.dev.process import clear

USER = "clamav"
SYSTEM_SIGNATURES = Path("/var/lib/clamav")
# The test file that every scanner knows, found anywhere in a message. In halves, so that none takes this file for it.
EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
OWN_SIGNATURES = f"EICAR-Test-Signature:0:*:{EICAR.hex()}\n"


@dataclass(frozen=True, slots=True)
class Clamd:
    """One embedded daemon of one home."""

    home: Home
    binary: Path
    port: int
    room: Room

    @property
    def settings(self) -> dict[str, str]:
        """What the filter has to know."""
        return {"POSTA_FILTER_CLAMD": f"{LISTEN_HOST}:{self.port}"}

    def prepare(self) -> None:
        """Write its configuration, and the one signature it has where this machine's freshclam has brought none."""
        folder, owner = self.room
        if signatures(SYSTEM_SIGNATURES):
            database = SYSTEM_SIGNATURES
        else:
            database = folder
            write(folder / "posta.ndb", OWN_SIGNATURES, owner=owner)
        write(
            folder / "clamd.conf",
            f"""\
TCPSocket {self.port}
TCPAddr {LISTEN_HOST}
DatabaseDirectory {database}
TemporaryDirectory {folder}
Foreground yes
LogTime yes
MaxThreads 4
StreamMaxLength 100M
MaxScanSize 400M
MaxFileSize 100M
ConcurrentDatabaseReload no
""",
            owner=owner,
        )

    def program(self) -> Program:
        """How the supervisor runs it."""

        async def ready() -> str:
            return await probe.clamd(self.port)

        async def before() -> None:
            await clear(self.room.folder)

        return Program(
            name="clamd",
            argv=(str(self.binary), "--config-file", str(self.room.folder / "clamd.conf")),
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "TZ": "UTC"},
            ports={"clamd": self.port},
            log=self.home.log_of("clamd"),
            ready=ready,
            before=before,
            cwd=self.room.folder,
            owner=self.room.owner,
            with_parent=signal.SIGTERM,
        )


def signatures(folder: Path) -> bool:
    """Whether freshclam, or somebody, has put a database there."""
    return any(folder.glob("main.c?d")) or any(folder.glob("daily.c?d"))


def embedded(home: Home, binary: Path, port: int) -> Clamd:
    """The embedded clamd of this home, its room made. Raises Trouble."""
    return Clamd(home, binary, port, room(home, "clamd", USER))
