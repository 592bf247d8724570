"""What the operating system knows of processes and ports."""

import asyncio
import ctypes
import errno
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # psutil ships neither annotations nor stubs

from services.dev.trouble import Trouble

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def dies_with_parent(number: signal.Signals) -> Callable[[], None]:
    """What a child runs before exec so that the kernel sends it `number` when its parent dies, however it dies.

    It holds for the child alone, not for its children; elsewhere than on Linux it does nothing.
    """
    parent = os.getpid()

    def before_exec() -> None:
        if _libc is None:
            return
        _libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        # The parent may have died between fork and prctl: then no signal would ever come.
        if os.getppid() != parent:
            os._exit(1)

    return before_exec


def command_of(pid: int) -> str:
    """The command line of a process, shortened; empty where it is gone or hidden."""
    try:
        process = psutil.Process(pid)
        words = " ".join(process.cmdline()) or str(process.name())
    except psutil.Error:
        return ""
    return words if len(words) <= 80 else words[:77] + "..."


def started_at(pid: int) -> float:
    """When the process began, in seconds since the epoch; 0 where there is none. With the pid it names a process."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0


def standing_in(folder: Path) -> list[int]:
    """The processes whose working folder is `folder`, as far as this user may see."""
    found, real = [], str(folder.resolve())
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.cwd() == real:
                found.append(int(process.pid))
    return found


async def clear(folder: Path) -> None:
    """End what an earlier run left standing in `folder`: the children of a server that was killed hold its ports.

    Raises Trouble where it does not end.
    """
    for pid in await asyncio.to_thread(standing_in, folder):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        if not await asyncio.to_thread(wait_gone, pid, 5.0):
            raise Trouble(f"an earlier process (pid {pid}, {command_of(pid)}) does not end")


def wait_gone(pid: int, timeout_s: float) -> bool:
    """Wait until the process has ended; False when it has not within `timeout_s`."""
    with suppress(psutil.NoSuchProcess):
        try:
            psutil.Process(pid).wait(timeout_s)
        except psutil.TimeoutExpired:
            return False
    return True


def taken(host: str, wanted: Iterable[tuple[str, str, int]]) -> list[str]:
    """A line for each wanted (who, what for, port) that cannot be bound on `host`, naming its holder if it can."""
    lines = []
    for who, role, port in wanted:
        what = who if who == role else f"{who}, {role}"
        with socket.socket() as probe:
            # A port whose last connections linger in TIME_WAIT is free for a listener that says this as well.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    lines.append(f"port {port} ({what}) is taken{_holder(port)}")
                else:
                    lines.append(f"port {port} ({what}) cannot be used: {error.strerror}")
    return lines


def _holder(port: int) -> str:
    try:
        found = psutil.net_connections("tcp")
    except (psutil.Error, OSError):
        return ""
    for each in found:
        if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port and each.pid:
            return f" by pid {each.pid} ({command_of(each.pid)})"
    return " by a process this user may not look at"
