"""`posta up`: in the foreground with the demo, or detached."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from services.dev import control, neighbour
from services.dev.beside import beside
from services.dev.home import Home
from services.dev.people import ALICE, BOB, DOMAIN, FAR
from services.dev.plan import Plan
from services.dev.supervisor import CLONE, PREPARE, Supervisor
from services.dev.trouble import Trouble

DETACHED_START_S = 180.0
STOP_S = 90.0
DEMO_STOP_S = 5.0


class Show(NamedTuple):
    """What a start makes and shows of the demo."""

    accounts: bool
    message: bool
    """alice writes to bob, and the way of it is shown."""
    neighbour: bool
    """alice writes to carol on a second platform, who answers."""


def foreground(home: Home, plan: Plan, env: Mapping[str, str], show: Show) -> None:
    """Run the platform until Ctrl-C, SIGTERM or `posta down`. Raises Trouble where it does not start."""
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {line}", flush=True)

    def on_ready(supervisor: Supervisor) -> asyncio.Task[None]:
        say(f"posta is up in {home.root}")
        return asyncio.create_task(_welcome(home, env, show, say))

    prepare = (*PREPARE, ALICE, BOB) if show.accounts else PREPARE
    if show.neighbour:
        env = {**env, **neighbour.reached(plan)}
    asyncio.run(Supervisor(home, plan, env, say, prepare).run(on_ready))
    say("posta is down")


def detached(home: Home, words: tuple[str, ...], env: Mapping[str, str]) -> None:
    """Start `posta <words>` in the background and return when it is ready.

    Raises Trouble, with its own line, where it does not get there.
    """
    home.prepare()
    if home.is_held():
        # Says who holds it, in the same words as a second one in the foreground.
        with home.held():
            pass
    log = home.log_of("posta")
    with log.open("wb") as file:
        process = subprocess.Popen(
            (sys.executable, "-m", "services.dev", *words),
            env=dict(env),
            cwd=CLONE,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    deadline = time.monotonic() + DETACHED_START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Trouble(_refusal(log) or f"posta ended with exit code {process.returncode} (log: {log})")
        with suppress(Trouble):
            if control.ask(home, "status", 5.0)["phase"] == "ready":
                return
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    raise Trouble(f"posta is not ready after {DETACHED_START_S:g} s (log: {log})")


def down(home: Home) -> int:
    """Stop the platform of this home and return when nothing of it is left: the pid it had.

    Raises Trouble where none runs or it does not end.
    """
    pid = int(control.ask(home, "down")["pid"])
    deadline = time.monotonic() + STOP_S
    while home.is_held():
        if time.monotonic() > deadline:
            raise Trouble(f"posta (pid {pid}) has not stopped after {STOP_S:g} s; its logs are in {home.log}")
        time.sleep(0.02)
    return pid


def _refusal(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    for number, line in enumerate(lines):
        if line.startswith("posta: "):
            return "\n".join([line.removeprefix("posta: "), *lines[number + 1 :]])
    return ""


async def _welcome(home: Home, env: Mapping[str, str], show: Show, say: Callable[[str], None]) -> None:
    """What a person sees once the platform is up: the message, how to point a client at it, the neighbour."""
    env = {**env, "POSTA_HOME": str(home.root)}
    quiet = () if show.message else ("--quiet",)
    failed = await beside("services.dev.demo", *quiet, env=env, cwd=CLONE, stop=signal.SIGKILL, stop_s=DEMO_STOP_S)
    if failed or not show.neighbour:
        return
    say(f"starting {FAR} for a moment, to write there and be answered (--without-neighbour leaves it out)")
    failed = await beside("services.dev.neighbour", env=env, cwd=CLONE, stop=signal.SIGTERM, stop_s=STOP_S)
    logs = f"; its logs are in {neighbour.home_of(home).log}" if failed else ""
    say(f"{FAR} is stopped{logs}; {DOMAIN} stays up until Ctrl-C")
