"""slim.py: leave of the base image what Python needs, and take the rest away: shell, perl, package manager, manuals.

The standard library is compiled where it is not: on a read-only root it would be compiled at every start.

Run as root inside the build, where nothing but the build can be harmed. Licences and the list of packages stay: the
first are owed, the second is what scanners read.
"""

from __future__ import annotations

import compileall
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from py_compile import PycInvalidationMode

STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib"))

_PROGRAMS = ("usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin")
_SHARED = {"ca-certificates", "common-licenses", "doc", "zoneinfo"}
_GONE = (
    *("etc/apt", "etc/cron.daily", "etc/logrotate.d", "etc/pam.d", "etc/systemd", "etc/alternatives"),
    *("usr/lib/apt", "usr/lib/dpkg", "usr/lib/init", "usr/lib/systemd", "usr/lib/udev", "usr/lib/python3"),
    *("usr/libexec", "usr/include", "usr/src", "usr/games", "root", "tmp", "var/cache", "var/log"),
    *("var/lib/apt", "var/lib/dpkg/info", "var/lib/systemd", "var/lib/pam"),
)
_LIBRARIES = ("gconv", "perl*", "libapt*", "libdb-*", "systemd", "security")
_STANDARD = ("ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tkinter", "turtledemo", "site-packages")
_EMPTY = (("root", 0o700), ("tmp", 0o1777), ("var/cache", 0o755), ("var/log", 0o755))


def _unneeded(root: Path) -> Iterator[Path]:
    for folder in _PROGRAMS:
        yield from (each for each in (root / folder).glob("*") if not each.name.startswith("python3"))
    yield from (each for each in (root / "usr/share").iterdir() if each.name not in _SHARED)
    yield from (root / name for name in _GONE)
    for pattern in _LIBRARIES:
        yield from root.glob(f"usr/lib/*-linux-gnu/{pattern}")
    yield from (STANDARD_LIBRARY / name for name in _STANDARD)


def slim(root: Path) -> None:
    """Take away everything below `root` that a service does not need."""
    for each in list(_unneeded(root)):
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        else:
            each.unlink(missing_ok=True)
    for name, mode in _EMPTY:
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(mode)


if __name__ == "__main__":
    slim(Path("/"))
    compileall.compile_dir(STANDARD_LIBRARY, quiet=2, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
