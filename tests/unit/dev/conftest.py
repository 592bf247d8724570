"""A platform of tiny services, run by the real supervisor in a process of its own."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from services.dev import control
from services.dev.home import Home
from services.dev.trouble import Trouble
from tests.ports import bases

REPO = Path(__file__).resolve().parents[3]

FAKE = """
import http.server, os, signal, socketserver, sys
name = sys.argv[0].rsplit("/", 1)[-1].removesuffix(".py")
flaw = os.environ.get("FLAW_" + name.upper(), "")
if flaw == "bad settings":
    sys.stderr.write("posta: POSTA_NONSENSE: unknown key\\n")
    sys.exit(2)
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        away = os.path.exists(os.environ["AWAY"])
        self.send_response(503 if away else 200); self.end_headers()
        self.wfile.write(b"database: away\\n" if away else b"ready\\n")
    def log_message(self, *words): pass
signal.signal(signal.SIGTERM, (lambda *_: print("deaf", flush=True)) if flaw == "deaf" else (lambda *_: os._exit(0)))
class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
Server(("127.0.0.1", int(os.environ["POSTA_HEALTH_PORT"])), Answer).serve_forever()
"""

DRIVER = """
    import asyncio, os, sys
    from pathlib import Path
    from services.dev.home import Home
    from services.dev.plan import Door, Plan, Service, base_of
    from services.dev.supervisor import Supervisor
    from services.dev.trouble import Trouble

    plan = Plan(base_of(os.environ), (
        Service("worker", 601, behind=True, module="worker"),
        Service("door", 603, (Door("submission", "SUBMISSION_PORT", 587),), module="door"),
    )).scaled(os.environ.get("REPLICAS", ""))
    home = Home(Path(os.environ["POSTA_HOME"]))
    supervisor = Supervisor(home, plan, os.environ, lambda line: print(line, flush=True), prepare=())
    try:
        asyncio.run(supervisor.run(lambda _: print("up", flush=True)))
    except Trouble as trouble:
        sys.exit(f"posta: {trouble}")
"""


def free_base() -> int:
    """A port base whose whole range is free, below the ports the kernel hands out to clients."""
    for _ in range(100):
        base = random.choice(bases(1000))
        if all(_free(base + offset) for offset in (587, 601, 603, 622, 632, 661, 663)):
            return base
    pytest.fail("no free range of ports")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        # As `taken` asks: what lingers from the test before is no holder.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def eventually(what: str, holds: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    """The first true value of `holds()`; fails where none comes."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := holds():
            return value
        time.sleep(0.02)
    return pytest.fail(f"not within {timeout_s:g} s: {what}")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Fleet:
    """Supervisors of one home."""

    eventually = staticmethod(eventually)
    alive = staticmethod(alive)

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder / "home")
        self.base = free_base()
        self.away = folder / "away"
        self.started: list[subprocess.Popen[str]] = []
        for name in ("worker", "door"):
            (folder / f"{name}.py").write_text(FAKE)
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("POSTA_")},
            "PYTHONPATH": f"{folder}:{REPO}",
            "POSTA_HOME": str(self.home.root),
            "POSTA_PORT_BASE": str(self.base),
            "POSTA_DATABASE_URL": "postgresql://elsewhere/posta",
            "POSTA_NATS_URL": "nats://elsewhere",
            "POSTA_DNS_SERVERS": "127.0.0.1",
            "POSTA_TLS_CERT": "/nowhere",
            "AWAY": str(self.away),
        }

    def start(self, **env: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            (sys.executable, "-c", textwrap.dedent(DRIVER)),
            env=self.env | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def up(self, **env: str) -> subprocess.Popen[str]:
        process = self.start(**env)
        assert process.stdout is not None
        for line in process.stdout:
            if line == "up\n":
                return process
        assert process.stderr is not None
        return pytest.fail(f"not up: {process.stderr.read()}")

    def ask(self, verb: str, **arguments: str) -> dict[str, Any]:
        return control.ask(self.home, verb, **arguments)

    def facts(self, name: str) -> dict[str, Any]:
        try:
            facts: dict[str, Any] = self.ask("status")["services"][name]
        except (Trouble, KeyError):
            return {}
        return facts

    def written(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self.home.state.read_text())
        return state

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.communicate()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path)
    yield fleet
    fleet.close()
