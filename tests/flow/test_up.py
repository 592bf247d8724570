"""`posta up` as a person and as a script use it: twice, detached, interrupted, killed, with ports taken."""

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def small(new_platform: Any) -> Any:
    """A platform of Postgres, NATS and one service: enough for what is not about mail."""
    small = new_platform()
    small.posta("up", "--detach", "--only", "delivery")
    small.state = small.status()
    return small


def test_status_is_for_scripts(small: Any) -> None:
    state = small.status()

    assert state["running"]
    assert state["ready"]
    assert state["home"] == str(small.home)
    assert set(state["services"]) == {"postgres", "nats", "dns", "delivery"}
    for name, facts in state["services"].items():
        assert facts["state"] == "ready", name
        assert facts["restarts"] == 0
        assert facts["uptime_s"] > 0
        os.kill(facts["pid"], 0)
        assert small.pid(name) == facts["pid"]
    assert state["services"]["nats"]["ports"] == {"nats": small.base + 622}
    assert "delivery" in small.posta("status")


def test_a_second_up_says_that_the_first_runs(small: Any) -> None:
    for words in (("up",), ("up", "--detach")):
        second = small.try_posta(*words)
        assert second.returncode == 1
        assert f"posta: posta is already running in {small.home} (pid {small.state['pid']}" in second.stderr
        assert len(second.stderr.splitlines()) == 1


def test_another_home_on_the_same_ports_is_told_who_has_them(small: Any, new_platform: Any) -> None:
    other = new_platform({"POSTA_PORT_BASE": str(small.base)})

    refused = other.try_posta("up", "--detach", "--only", "delivery")

    assert refused.returncode == 1
    nats = small.facts("nats")
    assert f"port {small.base + 622} (nats) is taken by pid {nats['pid']} (" in refused.stderr
    assert f"port {small.base + 602} (delivery, health) is taken by pid" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_provisioning_for_people_and_for_scripts(small: Any) -> None:
    made = json.loads(
        small.posta(
            *("account", "add", "Carol@Posta.test", "--password-stdin", "--quota", "10M", "--json"), stdin="a secret\n"
        )
    )
    assert (made["address"], made["quota_octets"], made["status"]) == ("carol@posta.test", 10 << 20, "active")

    small.posta("alias", "add", "team@posta.test", "carol@posta.test")
    small.posta("alias", "add", "team@posta.test", "bob@posta.test")
    assert json.loads(small.posta("alias", "list", "--json")) == [
        {"address": "team@posta.test", "targets": ["bob@posta.test", "carol@posta.test"]}
    ]
    small.posta("alias", "remove", "team@posta.test")
    small.posta("quota", "set", "carol@posta.test", "none")
    assert json.loads(small.posta("quota", "show", "carol@posta.test", "--json"))["quota_octets"] is None
    assert json.loads(small.posta("account", "suspend", "carol@posta.test", "--json"))["status"] == "suspended"
    assert "carol@posta.test" in small.posta("account", "list")
    small.posta("account", "remove", "--yes", "carol@posta.test")
    assert [each["address"] for each in json.loads(small.posta("account", "list", "--json"))] == [
        "alice@posta.test",
        "bob@posta.test",
    ]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("account", "add", "alice@posta.test", "--password", "some words"), 1, "alice@posta.test exists already"),
        (("account", "add", "x@nowhere.test", "--password", "some words"), 1, "nowhere.test is no domain of ours"),
        (("account", "add", "x@posta.test"), 2, "a password is needed"),
        (("account", "add", "no-address", "--password", "some words"), 2, ""),
        (("account", "show", "nobody@posta.test"), 1, "there is no account nobody@posta.test"),
        (("domain", "remove", "posta.test"), 1, "posta.test is still in use"),
        (("quota", "set", "alice@posta.test", "much"), 2, "expected a size such as 10G"),
        (("stop", "nothing"), 1, "no service is called nothing"),
        (("up", "--only", "nothing"), 1, "no service is called nothing"),
        (("up", "--replicas", "imap"), 2, "--replicas: expected SERVICE=NUMBER"),
        (("up", "--only", "delivery", "--replicas", "imap=2"), 2, "no service that runs is called 'imap'"),
        (("restart", "delivery", "nothing"), 1, "no service is called nothing"),
        (("trace", "nobody@elsewhere.test"), 1, "nothing is known of nobody@elsewhere.test"),
        (("frobnicate",), 2, "No such command"),
    ],
)
def test_what_is_refused_is_one_clear_line(small: Any, words: tuple[str, ...], code: int, says: str) -> None:
    refused = small.try_posta(*words)

    assert refused.returncode == code
    assert refused.stderr.startswith("posta: ")
    assert says in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["delivery", "nats", "postgres"])
def test_what_is_killed_comes_back(small: Any, name: str) -> None:
    before = small.facts(name)

    small.kill(name)

    small.eventually(f"{name} runs again", lambda: small.facts(name)["restarts"] > before["restarts"])
    for each in ("postgres", "nats", "delivery"):
        small.until_ready(each)
    assert small.pid(name) != before["pid"]


def test_secrets_and_mail_are_the_owners_alone(small: Any) -> None:
    assert stat.S_IMODE(small.home.stat().st_mode) == 0o700
    for secret in ("admin-token", "postgres-password", "nats-password"):
        assert stat.S_IMODE((small.home / secret).stat().st_mode) == 0o600
    with pytest.raises(asyncpg.InvalidPasswordError):
        asyncio.run(asyncpg.connect(f"postgresql://posta:guess@127.0.0.1:{small.base + 632}/posta"))


def test_down_leaves_nothing_running_and_a_second_up_finds_the_data(new_platform: Any) -> None:
    platform = new_platform()
    platform.posta("up", "--detach", "--only", "delivery")
    pids = [facts["pid"] for facts in platform.status()["services"].values()]
    platform.posta("domain", "add", "kept.test")

    platform.posta("down")

    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    state = platform.status()
    assert not state["running"]
    assert {facts["state"] for facts in state["services"].values()} == {"down"}
    assert platform.try_posta("down").returncode == 1
    assert platform.try_posta("status").returncode == 3

    platform.posta("up", "--detach", "--only", "delivery")
    assert {"domain": "kept.test"} in json.loads(platform.posta("domain", "list", "--json"))


def test_existing_servers_take_the_place_of_the_embedded_ones(small: Any, new_platform: Any) -> None:
    asyncio.run(_make_database(small.state["urls"]["database"], "elsewhere"))
    given = {
        "POSTA_DATABASE_URL": small.state["urls"]["database"].rpartition("/")[0] + "/elsewhere",
        "POSTA_NATS_URL": small.state["urls"]["nats"],
        "POSTA_DNS_SERVERS": f"127.0.0.1:{small.facts('dns')['ports']['dns']}",
    }
    guest = new_platform(given)

    guest.posta("up", "--detach", "--only", "delivery")

    assert set(guest.status()["services"]) == {"delivery"}
    assert json.loads(guest.posta("domain", "list", "--json")) == [{"domain": "posta.test"}]
    guest.posta("down")
    assert small.facts("postgres")["state"] == "ready"


def test_a_setting_nobody_knows_ends_the_start_with_its_name(new_platform: Any) -> None:
    platform = new_platform({"POSTA_IMAP_PROT": "1"})

    refused = platform.try_posta("up", "--detach", "--only", "delivery")

    assert refused.returncode == 1
    assert "POSTA_IMAP_PROT: unknown key" in refused.stderr
    assert not platform.status()["running"]


def test_the_first_command_shows_a_message_travelling_and_ctrl_c_ends_it(new_platform: Any) -> None:
    platform = new_platform()
    first = subprocess.Popen(
        (sys.executable, "-u", "-m", "services.dev", "up"),
        cwd=REPO,
        env=platform.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = []
    assert first.stdout is not None
    for line in first.stdout:
        said.append(line)
        if "Ctrl-C stops everything" in line:
            break
    text = "".join(said)
    try:
        assert "alice@posta.test → bob@posta.test: 250" in text, text + platform.last_words()
        for step in ("received", "scanned", "accepted", "delivered"):
            assert step in text
        assert " ms" in text
        assert f"localhost:{platform.ports['imaps']} (TLS)" in text
    finally:
        first.send_signal(signal.SIGINT)
        rest, _ = first.communicate(timeout=60)
    assert first.returncode == 0, rest
    assert "posta is down" in rest
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", platform.ports["imap"])) != 0


async def _make_database(url: str, name: str) -> None:
    conn = await asyncpg.connect(url)
    await conn.execute(f"CREATE DATABASE {name}")
    await conn.close()
