"""An upgrade half way: the services of the version that landed last and of this one, on one store and one bus.

As an upgrade goes: the previous version runs and has mail, this version's migrations are run while it does, then pods
of both versions serve side by side.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services.core.store.migrate import migrate
from services.dev import control
from services.dev.home import Home
from services.dev.plan import Plan
from tests.flow.clients import Imap, arrived, drop, letter, message_id, offer, submission, submit
from tests.flow.conftest import REPO, Platform, User, free_base
from tests.flow.faults.world import FAR, FarServer
from tests.flow.replicas.conftest import mx

pytestmark = pytest.mark.timeout(300)  # two platforms start

PREVIOUS = "53dc8b8d6b605fd4ef0f9d2825a276f0318524f9"
"""What landed last. Whoever lands a change after this one names this one here."""
OLD, NEW = "previous", "this"
FAR_OFFSET = 99
ALICE, BOB = (User(f"{name}@posta.test", "posta-demo") for name in ("alice", "bob"))


class Previous(Platform):
    """The platform of the version that landed last, run by its own supervisor from its own code."""

    def start(self, service: str) -> None:
        control.ask(Home(self.home), "start", 90.0, service=service)

    def stop(self, service: str) -> None:
        control.ask(Home(self.home), "stop", service=service)


@dataclass
class Beside(Platform):
    """Services of this version, on the store and bus of a platform that another version runs."""

    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, service: str) -> None:
        self.start_all(service)

    def start_all(self, *services: str) -> None:
        """Start these and return when all are ready."""
        plan = Plan(self.base)
        given = {name: value for name, value in os.environ.items() if not name.startswith("POSTA_")}
        given |= {name: str(value) for name, value in control.ask(Home(self.home), "environment").items()}
        for process in plan.processes():
            if process.name in services and process.name not in self.running:
                with (self.home / "log" / f"this-{process.name}.log").open("ab") as log:
                    self.running[process.name] = subprocess.Popen(
                        (sys.executable, "-m", process.service.runs),
                        cwd=REPO,
                        env=given | plan.environment(process),
                        stdout=log,
                        stderr=log,
                    )
        for process in plan.processes():
            if process.name in services:
                port = plan.ports(process)["health"]
                self.eventually(
                    f"{process.name} is ready{self.last_words()}", lambda port=port: ready(port), timeout_s=60
                )

    def stop(self, service: str) -> None:
        self.stop_all(service)

    def stop_all(self, *services: str) -> None:
        """Stop these, where they run, and return when they are gone."""
        ending = [self.running.pop(service) for service in services if service in self.running]
        for process in ending:
            process.terminate()
        for process in ending:
            process.wait(30)


def ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
            return True
    except OSError:
        return False


def previous(folder: Path) -> Path:
    """The code of the version that landed last; the test is skipped where the history does not have it."""
    archive = folder / "previous.tar"
    words = ("git", "-c", "safe.directory=*", "archive", "-o", str(archive), PREVIOUS, "services")
    try:
        done = subprocess.run(words, cwd=REPO, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"needs git: {error}")
    if done.returncode != 0:
        pytest.skip(f"needs the history of this clone as far as {PREVIOUS[:7]}: {done.stderr.strip()}")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def kept() -> bytes:
    """A message that the previous version has delivered."""
    return letter(ALICE.address, BOB.address)


@pytest.fixture(scope="module")
def versions(
    new_platform: Callable[..., Platform], tmp_path_factory: pytest.TempPathFactory, kept: bytes
) -> Iterator[Mapping[str, Platform]]:
    """Both, each with doors and workers of its own, at this version's schema."""
    code = previous(tmp_path_factory.mktemp("previous"))
    made = new_platform({"POSTA_SPOOL_SWEEP_S": "1", "POSTA_RELAY_POLL_S": "1", "POSTA_RELAY_LEASE_S": "3"})
    old = Previous(made.home, made.base, made.env, code=code)
    old.env["POSTA_RELAY_PORT"] = str(old.base + FAR_OFFSET)
    zones = old.home / "zones"
    zones.mkdir(parents=True)
    (zones / f"{FAR}.zone").write_text(f"$ORIGIN {FAR}.\n@ 60 IN MX 10 mx.{FAR}.\nmx 60 IN A 127.0.0.1\n")
    old.posta("up", "--detach")
    old.state = old.status()
    assert Path(f"/proc/{old.pid('delivery')}/cwd").resolve() == code.resolve()
    assert submit(old, ALICE, BOB.address, kept)[0] == 250
    arrived(old, BOB, message_id(kept))

    asyncio.run(migrate(old.database_url))
    new = Beside(old.home, free_base(), old.env, old.state)
    try:
        new.start_all(*(service.name for service in Plan().services if service.name != "sync"))
        yield {OLD: old, NEW: new}
    finally:
        new.stop_all(*new.running)
        old.posta("down")


def test_what_the_previous_version_kept_is_read_by_this_one(versions: Mapping[str, Platform], kept: bytes) -> None:
    assert arrived(versions[NEW], BOB, message_id(kept)).endswith(kept)
    with Imap(versions[NEW], BOB) as imap:
        assert imap.fetch(1).endswith(kept)


@pytest.mark.parametrize(("door", "worker"), [(OLD, NEW), (NEW, OLD)])
def test_mail_in_by_one_version_is_delivered_by_another(
    versions: Mapping[str, Platform], door: str, worker: str
) -> None:
    user = versions[OLD].add_user()
    for version, each in versions.items():
        # What the doors put on the bus lies there until a worker comes.
        each.stop("delivery")
        each.stop("filter")
        if version == worker:
            each.start("filter")
    by_user, by_server = (letter(user.address, user.address, ".a dot\r\n\r\n..two\r\n") for _ in range(2))
    with submission(versions[door], user) as client:
        assert offer(client, user.address, [user.address], by_user)[0] == 250
    with mx(versions[door]) as client:
        assert offer(client, "someone@elsewhere.test", [user.address], by_server)[0] == 250
    versions[worker].start("delivery")

    for reader in versions.values():
        for message in (by_user, by_server):
            assert arrived(reader, user, message_id(message)).endswith(message)
        with Imap(reader, user) as imap:
            assert {imap.fetch(n)[-len(by_user) :] for n in (1, 2)} == {by_user, by_server}


@pytest.mark.parametrize(("door", "relay"), [(OLD, NEW), (NEW, OLD)])
def test_mail_for_elsewhere_is_relayed_by_another_version(
    versions: Mapping[str, Platform], door: str, relay: str
) -> None:
    user, far_user = versions[OLD].add_user(), f"ann@{FAR}"
    for each in versions.values():
        each.start("filter")
        each.stop("mxrouter")
    message = letter(user.address, far_user)
    with FarServer(versions[OLD].base + FAR_OFFSET, seed=1) as far:
        assert submit(versions[door], user, far_user, message)[0] == 250
        versions[relay].start("mxrouter")
        versions[relay].eventually("it has arrived", lambda: far.taken[message_id(message), far_user] == 1)


def test_what_a_reader_of_one_version_changes_another_tells(versions: Mapping[str, Platform]) -> None:
    for each in versions.values():
        each.start("delivery")
    user = versions[OLD].add_user()
    for _ in range(2):
        message = letter(user.address, user.address)
        assert submit(versions[NEW], user, user.address, message)[0] == 250
        arrived(versions[NEW], user, message_id(message))
    for actor, watcher, flag in ((OLD, NEW, "\\Flagged"), (NEW, OLD, "\\Answered")):
        with Imap(versions[actor], user) as here, Imap(versions[watcher], user) as there:
            there.idle()
            here.command(f"STORE 1 +FLAGS ({flag})")
            there.heard(rb"1 FETCH \(.*\\" + flag[1:].encode())
            pop = drop(versions[actor], user)
            pop.dele(pop.stat()[0])
            pop.quit()
            there.heard(rb"\d EXPUNGE")


def test_the_previous_version_s_admin_api_answers_on_the_new_schema(versions: Mapping[str, Platform]) -> None:
    old = versions[OLD]
    request = urllib.request.Request(
        f"http://localhost:{old.ports['http']}/api/v1/accounts", headers={"Authorization": f"Bearer {old.admin_token}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert ALICE.address in json.dumps(json.load(answer))
