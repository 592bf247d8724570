"""One process of the platform: started, watched, started again when it dies, stopped in order."""

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

from services.dev.place import Owner
from services.dev.process import dies_with_parent, started_at
from services.dev.trouble import Trouble

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
STEADY_S = 10.0
"""A process that lived this long starts the pauses anew when it dies."""
FIRST_LOOK_S, LONGEST_LOOK_S = 0.03, 2.0
ATTEMPTS_TO_START = 5
BAD_SETTINGS = 2
LOG_SIZE = 16 * 1024 * 1024


class State(StrEnum):
    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"
    """It lives, but says that it cannot work: something it needs is away."""
    RESTARTING = "restarting"
    DOWN = "down"


async def _nothing() -> None:
    return


@dataclass(frozen=True, slots=True)
class Program:
    """How a process is run. `ready()` answers why it cannot work yet, empty when it can."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    log: Path
    ready: Callable[[], Awaitable[str]]
    ports: Mapping[str, int] = field(default_factory=dict)
    before: Callable[[], Awaitable[None]] = _nothing
    cwd: Path = Path("/")
    owner: Owner | None = None
    stop: tuple[tuple[signal.Signals, float], ...] = ((signal.SIGTERM, 10.0),)
    """What is sent and how long each may take, before SIGKILL to its whole process group."""
    with_parent: signal.Signals = signal.SIGKILL

    def start_with(self, log: IO[bytes]) -> dict[str, Any]:
        """What any way to start a process is to be told, beside `argv`; it writes to `log`."""
        owner = self.owner
        return {
            "env": dict(self.env),
            "cwd": self.cwd,
            "stdin": subprocess.DEVNULL,
            "stdout": log,
            "stderr": log,
            # Ctrl-C at the terminal is for the supervisor alone: it stops the others in their order.
            "start_new_session": True,
            "user": owner.uid if owner else None,
            "group": owner.gid if owner else None,
            "extra_groups": () if owner else None,
            # Runs after the change of user, which would take the setting back.
            "preexec_fn": dies_with_parent(self.with_parent),
        }


class Child:
    """A `Program` kept running. `changed()` is called after each change of state, `say(line)` for a person to read."""

    def __init__(self, program: Program, changed: Callable[[], None], say: Callable[[str], None]) -> None:
        self.program = program
        self.state = State.DOWN
        self.reason = ""
        self.pid = 0
        self.began_at = 0.0
        self.restarts = 0
        self._changed = changed
        self._say = say
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._stopping = False
        self._moved = asyncio.Event()
        self._hopeless = ""

    @property
    def running(self) -> bool:
        return self._keeper is not None and not self._keeper.done()

    def start(self) -> None:
        """Begin to keep it running; nothing happens where it is kept already."""
        if not self.running:
            self._stopping, self._hopeless = False, ""
            self._keeper = asyncio.create_task(self._keep(), name=self.program.name)
            self._keeper.add_done_callback(self._kept)

    async def until_ready(self, timeout_s: float) -> None:
        """Wait until it is ready. Raises Trouble, with its own last words, where it does not get there."""
        deadline = time.monotonic() + timeout_s
        while self.state is not State.READY:
            if self._hopeless:
                raise Trouble(self._hopeless)
            self._moved.clear()
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._moved.wait()
            except TimeoutError:
                why = f" ({self.reason})" if self.reason else ""
                raise Trouble(
                    f"{self.program.name} is not ready after {timeout_s:g} s{why}; its log is {self.program.log}"
                ) from None

    async def stop(self) -> None:
        """End the process, gently first, and keep it ended. Returns when it is gone.

        Cancelled, it leaves the process as it is; a second call goes on.
        """
        self._stopping = True
        if self._process is not None:
            await self._end(self._process)
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait((self._keeper,))
        self._turn(State.DOWN, "")

    def rotate_log(self) -> None:
        """Begin the log anew once it is large; one older part is kept.

        By copy and truncation, since the process holds the file open; a line written in between is lost.
        """
        path = self.program.log
        with suppress(FileNotFoundError):
            if path.stat().st_size > LOG_SIZE:
                shutil.copyfile(path, path.with_suffix(".log.1"))
                os.truncate(path, 0)

    async def _keep(self) -> None:
        in_a_row = 0
        while True:
            began = time.monotonic()
            was_ready, how = await self._once()
            if self._stopping:
                return
            in_a_row = 0 if was_ready and time.monotonic() - began > STEADY_S else in_a_row + 1
            if not was_ready and (how == f"exit code {BAD_SETTINGS}" or in_a_row >= ATTEMPTS_TO_START):
                self._hopeless = f"{self.program.name} does not start: {self._last_words() or how}"
            pause_s = min(FIRST_PAUSE_S * 2 ** max(in_a_row - 1, 0), LONGEST_PAUSE_S)
            self.restarts += 1
            self._turn(State.RESTARTING, how)
            self._say(f"{self.program.name} ended ({how}); starting it again in {pause_s:g} s")
            await asyncio.sleep(pause_s)

    async def _once(self) -> tuple[bool, str]:
        """Run it once to its end: whether it ever was ready, and how it ended."""
        try:
            await self.program.before()
            self._process = process = await self._spawn()
        except (OSError, Trouble) as error:
            return False, str(error)
        self.pid, self.began_at = process.pid, started_at(process.pid) or time.time()
        self._turn(State.STARTING, "")
        looking = asyncio.create_task(self._look())
        try:
            code = await process.wait()
        finally:
            looking.cancel()
            await asyncio.wait((looking,))
            self._process, self.pid, self.began_at = None, 0, 0.0
        if not looking.cancelled() and (bug := looking.exception()):
            raise bug
        was_ready = self.state in (State.READY, State.DEGRADED)
        return was_ready, f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"

    async def _spawn(self) -> asyncio.subprocess.Process:
        with self.program.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(*self.program.argv, **self.program.start_with(log))

    async def _look(self) -> None:
        pause_s = FIRST_LOOK_S
        while True:
            reason = await self.program.ready()
            if not reason:
                self._turn(State.READY, "")
            elif self.state is State.STARTING:
                self.reason = reason
            else:
                self._turn(State.DEGRADED, reason)
            # Soon while it starts, then as seldom as still catches a dependency that comes or goes.
            pause_s = LONGEST_LOOK_S if not reason else min(pause_s * 1.3, 0.5)
            await asyncio.sleep(pause_s)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        for number, wait_s in self.program.stop:
            with suppress(ProcessLookupError):
                process.send_signal(number)
            try:
                async with asyncio.timeout(wait_s):
                    await process.wait()
                return
            except TimeoutError:
                continue
        self._say(f"{self.program.name} does not stop, it is killed")
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

    def _kept(self, keeper: asyncio.Task[None]) -> None:
        if not keeper.cancelled() and (error := keeper.exception()):
            self._hopeless = f"{self.program.name} is no longer watched: {type(error).__name__}: {error}"
            self._say(self._hopeless)
            self._turn(State.DOWN, self._hopeless)

    def _turn(self, state: State, reason: str) -> None:
        if (state, reason) != (self.state, self.reason):
            self.state, self.reason = state, reason
            self._changed()
        self._moved.set()

    def _last_words(self) -> str:
        try:
            with self.program.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 4000))
                lines = [line for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
        except OSError:
            return ""
        return f"{lines[-1].strip()[:400]} (log: {self.program.log})" if lines else ""
