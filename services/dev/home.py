"""The home of one platform: a folder with its data, logs, secrets, lock and state."""

import fcntl
import json
import os
import pwd
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import services
from services.dev.trouble import Trouble

# sun_path holds 108 octets on Linux, 104 on the BSDs, the closing zero included.
LONGEST_SOCKET_PATH = 103


@dataclass(frozen=True, slots=True)
class Home:
    """Where everything of one platform lies. Making one touches nothing; `prepare` makes the folders."""

    root: Path

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def tls(self) -> Path:
        return self.root / "tls"

    @property
    def nats(self) -> Path:
        return self.root / "nats"

    @property
    def zones(self) -> Path:
        """Zone files that the test DNS answers from."""
        return self.root / "zones"

    @property
    def postgres(self) -> Path:
        return self.root / "postgres"

    @property
    def state(self) -> Path:
        return self.run / "state.json"

    @property
    def fingerprint(self) -> str:
        return sha256(os.fsencode(self.root)).hexdigest()[:12]

    def prepare(self) -> None:
        """Make the folders, private to their owner. Raises Trouble where this user cannot keep a platform here."""
        try:
            for folder in (self.root, self.log, self.run, self.postgres, self.nats, self.zones):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            inner = self.run.stat().st_uid
            if inner == os.geteuid() == self.root.stat().st_uid:
                self.root.chmod(0o700)
        except OSError as error:
            raise Trouble(f"cannot write in {self.root}: {error.strerror}; set POSTA_HOME to another folder") from None
        if inner != os.geteuid():
            raise Trouble(
                f"{self.root} was made by {user_name(inner)}, this is {user_name(os.geteuid())}: run posta as"
                f" {user_name(inner)}, or set POSTA_HOME to another folder"
            )

    def log_of(self, name: str) -> Path:
        return self.log / f"{name}.log"

    def secret(self, name: str) -> str:
        """The secret kept in the file `name`, made at the first call, readable by the owner alone."""
        path = self.root / name
        try:
            return path.read_text().strip()
        except FileNotFoundError:
            text = secrets.token_urlsafe(24)
            write(path, text + "\n")
            return text

    def socket(self, name: str) -> Path:
        """Where a Unix socket of that name goes: in the home, or in a private temporary folder if that is too long.

        Raises Trouble when the temporary folder is somebody else's.
        """
        path = self.run / name
        if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
            return path
        folder = Path(tempfile.gettempdir()) / f"posta-{os.geteuid()}-{self.fingerprint}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if found.st_uid != os.geteuid() or found.st_mode & 0o077 or folder.is_symlink():
            raise Trouble(
                f"{folder} belongs to {user_name(found.st_uid)}: remove it, or set POSTA_HOME to a short path"
            )
        return folder / name

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the one platform of this home until the block ends or the process dies.

        Raises Trouble, naming the other one, where a platform runs already.
        """
        with (self.run / "lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Trouble(_already(self)) from None
            yield

    def is_held(self) -> bool:
        """Whether a platform runs in this home."""
        try:
            with (self.run / "lock").open("r") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        except OSError as error:
            raise Trouble(f"cannot read {self.run}: {error.strerror}") from None
        return False

    def last_state(self) -> dict[str, Any]:
        """What the platform last wrote of itself; empty when it never ran."""
        try:
            found = json.loads(self.state.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def find(env: Mapping[str, str]) -> Home:
    """The home that `env` means: POSTA_HOME, or `.posta` beside the `services` package of this clone."""
    if named := env.get("POSTA_HOME", ""):
        return Home(Path(named).expanduser().resolve())
    clone = Path(services.__file__ or ".").resolve().parent.parent
    # Installed without a clone there is no such place: then it is the current folder.
    return Home((clone if (clone / "pyproject.toml").exists() else Path.cwd()) / ".posta")


def write(path: Path, text: str, mode: int = 0o600, owner: tuple[int, int] | None = None) -> None:
    """Replace the file by `text` in one step: a reader sees the old or the new content, never a part."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            # By handle: `owner` may be able to put a link in the path's way.
            os.fchmod(file.fileno(), mode)
            if owner is not None:
                os.fchown(file.fileno(), *owner)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def user_name(uid: int) -> str:
    """The login name of a uid, or the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _already(home: Home) -> str:
    state = home.last_state()
    doors = state.get("doors") or {}
    where = ", ".join(f"{name} {port}" for name, port in doors.items())
    return (
        f"posta is already running in {home.root} (pid {state.get('pid', 'unknown')}"
        + (f"; {where}" if where else "")
        + "); `posta status` shows it, `posta down` stops it"
    )
