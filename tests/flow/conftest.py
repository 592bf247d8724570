"""A whole platform for the flow tests: started once by `posta up --detach`, in a home and on ports of its own."""

import asyncio
import json
import os
import random
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from services.dev.engines import ENGINES
from services.dev.plan import SERVICES, Plan
from services.dev.provision import Provisioning
from tests.ports import bases

REPO = Path(__file__).resolve().parents[2]
DOMAIN = "posta.test"
TWICE = ",".join(f"{service.name}=2" for service in SERVICES)


class User(NamedTuple):
    """A mailbox of the platform under test."""

    address: str
    password: str


@dataclass
class Platform:
    """A running platform: its ports by name ("submission", "imaps" ...), and the verbs a test needs."""

    home: Path
    base: int
    env: dict[str, str]
    state: dict[str, Any] = field(default_factory=dict)
    code: Path = REPO
    """The clone that its verbs and services are run from."""

    @property
    def ports(self) -> dict[str, int]:
        return Plan(self.base).doors()

    @property
    def ca(self) -> Path:
        return Path(self.state["urls"]["ca"])

    @property
    def database_url(self) -> str:
        return str(self.state["urls"]["database"])

    @property
    def nats_url(self) -> str:
        return str(self.state["urls"]["nats"])

    @property
    def admin_token(self) -> str:
        return (self.home / "admin-token").read_text().strip()

    def tls(self) -> ssl.SSLContext:
        """A client's context that trusts this platform's CA."""
        return ssl.create_default_context(cafile=str(self.ca))

    def try_posta(self, *words: str, stdin: str = "", timeout_s: float = 200) -> subprocess.CompletedProcess[str]:
        """Run `posta <words>` against this platform, whatever comes of it."""
        return subprocess.run(
            (sys.executable, "-m", "services.dev", *words),
            cwd=self.code,
            env=self.env,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def posta(self, *words: str, stdin: str = "") -> str:
        """What `posta <words>` prints; the test fails where the verb does."""
        done = self.try_posta(*words, stdin=stdin)
        assert done.returncode == 0, f"posta {' '.join(words)}: {done.stderr}{self.last_words()}"
        return done.stdout

    def status(self) -> dict[str, Any]:
        """`posta status --json`."""
        state: dict[str, Any] = json.loads(self.try_posta("status", "--json").stdout)
        return state

    def facts(self, service: str) -> dict[str, Any]:
        """What `posta status` says of one service."""
        facts: dict[str, Any] = self.status()["services"][service]
        return facts

    def pid(self, service: str) -> int:
        """The pid of a service that runs."""
        return int((self.home / "run" / f"{service}.pid").read_text())

    def stop(self, service: str) -> None:
        """Stop one service and return when it is gone."""
        self.posta("stop", service)

    def start(self, service: str) -> None:
        """Start one service again and return when it is ready."""
        self.posta("start", service)

    def kill(self, service: str) -> None:
        """`kill -9` one service, once it runs; the supervisor starts it again."""
        pid_file = self.home / "run" / f"{service}.pid"  # gone while it waits to be started again
        self.eventually(f"{service} runs", pid_file.exists, 60)
        os.kill(self.pid(service), signal.SIGKILL)

    def until_ready(self, service: str, timeout_s: float = 30.0) -> None:
        """Wait until a service is ready (again)."""
        self.eventually(f"{service} is ready", lambda: self.facts(service)["state"] == "ready", timeout_s)

    def provision(self, do: Callable[[Provisioning], Coroutine[Any, Any, Any]]) -> None:
        """What the `posta` verbs do, without the second that a process takes."""

        async def work() -> None:
            async with Provisioning.at(self.database_url, self.nats_url) as provisioning:
                await do(provisioning)

        asyncio.run(work())

    def add_user(self, name: str = "", quota_octets: int | None = None) -> User:
        """A new account of posta.test, with a name of its own unless one is given."""
        user = User(f"{name or 'user-' + secrets.token_hex(4)}@{DOMAIN}", "correct horse")
        self.provision(lambda p: p.add_account(user.address, user.password, quota_octets=quota_octets))
        return user

    def add_alias(self, address: str, *targets: str) -> None:
        """An alias for all of them; `@domain` is a catch-all."""
        for target in targets:
            self.provision(lambda p, target=target: p.add_alias(address, target))

    def trace(self, what: str) -> list[dict[str, Any]]:
        """`posta trace --json`; empty when nothing is known."""
        found: list[dict[str, Any]] = json.loads(self.try_posta("trace", what, "--json").stdout or "[]")
        return found

    def log(self, service: str) -> str:
        """Everything a service has logged."""
        return (self.home / "log" / f"{service}.log").read_text(errors="replace")

    def last_words(self) -> str:
        """The end of every log, for the report of a failed test."""
        parts = []
        for path in sorted((self.home / "log").glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()[-8:]
            parts.append("\n".join((f"--- {path.name}", *lines)))
        return "\n" + "\n".join(parts)

    @staticmethod
    def eventually(what: str, holds: Callable[[], Any], timeout_s: float = 20.0) -> Any:
        """The first true value of `holds()`; the test fails where none comes in time."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if value := holds():
                return value
            time.sleep(0.02)
        return pytest.fail(f"not within {timeout_s:g} s: {what}")


def free_base() -> int:
    """A port base whose ports are all free, below those that the kernel hands out to clients."""
    for _ in range(200):
        base = random.choice(bases(100))
        plan = Plan(base).scaled(TWICE)
        wanted = [port for _, _, port in plan.wanted(postgres=True, nats=True, dns=True, engines=ENGINES)]
        if all(map(_free, wanted)):
            return base
    return pytest.fail("no free range of ports")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def environment(home: Path, base: int, **more: str) -> dict[str, str]:
    """What `posta` is given: nothing of the caller's own platform, and no engines, which take seconds to start."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("POSTA_")}
    return {**env, "POSTA_HOME": str(home), "POSTA_PORT_BASE": str(base), "POSTA_ENGINES": "none", **more}


@contextmanager
def _platforms() -> Iterator[Callable[..., Platform]]:
    """A function that makes a platform that does not run yet; at the end all of them are stopped and deleted."""
    # Not below pytest's own folder: its long name would be in every path, and Postgres's user could not enter it.
    with tempfile.TemporaryDirectory(prefix="posta-flow-", ignore_cleanup_errors=True) as folder:
        made: list[Platform] = []

        def make(settings: Mapping[str, str] | None = None) -> Platform:
            base, home = free_base(), Path(folder) / f"home{len(made)}"
            platform = Platform(home, base, environment(home, base, **(settings or {})))
            made.append(platform)
            return platform

        yield make
        for platform in made:
            _end(platform)


@pytest.fixture(scope="module")
def new_platform() -> Iterator[Callable[..., Platform]]:
    """Makes platforms for tests that start and stop by themselves; they end with the file. Others share `platform`."""
    with _platforms() as make:
        yield make


@pytest.fixture(scope="session")
def lasting_platform() -> Iterator[Callable[..., Platform]]:
    """Makes platforms that several files share."""
    with _platforms() as make:
        yield make


def _end(platform: Platform) -> None:
    """Stop it, by force if it must be, and delete what it left."""
    if not platform.home.exists():
        return
    pid = 0
    with suppress(OSError, ValueError, KeyError):
        pid = int(json.loads((platform.home / "run" / "state.json").read_text())["pid"])
    try:
        if platform.try_posta("down", timeout_s=60).returncode != 0 and _runs_posta(pid):
            os.kill(pid, signal.SIGKILL)
    except subprocess.TimeoutExpired:
        if _runs_posta(pid):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while platform.try_posta("wipe", "--yes").returncode != 0 and time.monotonic() < deadline:
        time.sleep(0.1)


def _runs_posta(pid: int) -> bool:
    try:
        return b"services.dev" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


@pytest.fixture(scope="session")
def platform(lasting_platform: Callable[..., Platform]) -> Platform:
    """The platform that flow tests share: every service, Postgres and NATS, with the demo accounts alice and bob."""
    platform = lasting_platform()
    platform.posta("up", "--detach")
    platform.state = platform.status()
    return platform


@pytest.fixture(scope="session")
def mortal(lasting_platform: Callable[..., Platform]) -> Platform:
    """A platform for those who kill: what was lost with a process is soon missed."""
    platform = lasting_platform(
        {"POSTA_SPOOL_SWEEP_S": "1", "POSTA_DELIVERY_ACK_WAIT_S": "3", "POSTA_SCAN_DEADLINE_S": "5"}
    )
    platform.posta("up", "--detach")
    platform.state = platform.status()
    return platform


@pytest.fixture(scope="session")
def alice() -> User:
    return User(f"alice@{DOMAIN}", "posta-demo")


@pytest.fixture(scope="session")
def bob() -> User:
    return User(f"bob@{DOMAIN}", "posta-demo")


@pytest.fixture(autouse=True)
def _all_services_run(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that stopped or killed services must not trouble the next one."""
    used: list[Platform] = [
        request.getfixturevalue(name) for name in ("platform", "mortal", "doubled") if name in request.fixturenames
    ]
    yield
    for platform in used:
        for name, facts in json.loads((platform.home / "run" / "state.json").read_text())["services"].items():
            if facts["state"] == "down":
                platform.start(name)
            elif facts["state"] != "ready":
                platform.until_ready(name)
