"""`posta up` shows mail leaving for another platform and coming back, and nothing of that platform stays."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from services.dev.home import Home
from services.dev.neighbour import home_of, plan_of
from services.dev.plan import LISTEN_HOST, Plan
from services.dev.process import taken
from tests.flow.conftest import REPO

SERVICES = "filter,delivery,submission,mxrouter,imap"


@pytest.fixture
def up(new_platform: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """A function that runs `posta up` in the foreground, where the neighbour's ports are free too."""
    running: list[subprocess.Popen[str]] = []

    def start(platform: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            (sys.executable, "-u", "-m", "services.dev", "up", "--only", SERVICES),
            cwd=REPO,
            env=platform.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=60)


@pytest.fixture
def platform_with_room(new_platform: Callable[..., Any]) -> Any:
    for _ in range(50):
        platform = new_platform()
        if not neighbours_ports_taken(platform):
            return platform
    return pytest.fail("no free range of ports for two platforms")


def neighbours_ports_taken(platform: Any) -> list[str]:
    return taken(LISTEN_HOST, plan_of(Plan(platform.base)).wanted(postgres=True, nats=True, dns=True))


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """Everything said up to the line with these words; the test fails where it does not come."""
    said = []
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if words in line:
            return "".join(said)
    return pytest.fail(f"never said: {words}\n{''.join(said)}")


def rows(text: str, sender: str) -> list[tuple[str, str, str]]:
    """Step, service and what is said of it, of every row of a trace that tells of this sender."""
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    return [(step, service, what) for step, service, _, _, what in cells if what.startswith(sender)]


def test_alice_writes_to_another_platform_and_is_answered(up: Callable[..., Any], platform_with_room: Any) -> None:
    platform = platform_with_room
    process = up(platform)

    ready = read_until(process, "Ctrl-C stops everything")
    assert "remote.test" not in ready, "the platform is shown first"
    said = read_until(process, "remote.test is stopped")

    assert "alice@posta.test → carol@remote.test: 250" in said
    assert "carol@remote.test → alice@posta.test: 250" in said
    for sender, here, there in (("alice", "posta.test", "remote.test"), ("carol", "remote.test", "posta.test")):
        steps = rows(said, f"{sender}@{here} → ")
        assert sorted((step, service) for step, service, _ in steps) == sorted(
            [
                ("received", f"{here} submission"),
                ("scanned", f"{here} filter"),
                ("accepted", f"{here} submission"),
                ("received", f"{there} mxrouter"),
                ("scanned", f"{there} filter"),
                ("accepted", f"{there} mxrouter"),
                ("relayed", f"{here} mxrouter"),
                ("delivered", f"{there} delivery"),
            ]
        )
        assert next(what for step, _, what in steps if step == "relayed").endswith(f"by mx.{there}")
    assert not neighbours_ports_taken(platform)
    assert not home_of(Home(platform.home)).root.exists()
    assert platform.status()["ready"]
    assert "posta is down" not in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_neighbour_ends_with_the_platform(
    up: Callable[..., Any], platform_with_room: Any, number: signal.Signals
) -> None:
    platform = platform_with_room
    process = up(platform)
    read_until(process, "starting remote.test")
    platform.eventually("the neighbour starts", lambda: neighbours_ports_taken(platform))

    process.send_signal(number)

    process.wait(60)
    platform.eventually("nothing of it runs", lambda: not neighbours_ports_taken(platform), 60)
    if number is signal.SIGINT:
        assert not home_of(Home(platform.home)).root.exists()
    assert process.returncode == (0 if number is signal.SIGINT else -number)


def test_without_room_for_a_neighbour_the_platform_stays_up(up: Callable[..., Any], platform_with_room: Any) -> None:
    platform = platform_with_room
    with socket.create_server((LISTEN_HOST, plan_of(Plan(platform.base)).mx_port)):
        process = up(platform)
        said = read_until(process, "remote.test is stopped")

    assert "posta: remote.test does not start: port " in said
    assert "Traceback" not in said
    assert platform.status()["ready"]


def test_a_neighbour_that_cannot_be_is_refused_only_where_it_is_asked_for(new_platform: Callable[..., Any]) -> None:
    refused = new_platform().try_posta("up", "--with-neighbour", "--without", "imap")

    assert refused.returncode == 1
    assert refused.stderr == "posta: a neighbour is of no use without imap\n"
