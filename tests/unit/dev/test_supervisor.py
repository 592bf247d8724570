"""The supervisor against processes that die, processes that do not, and a machine that is not empty."""

import os
import signal
import socket
import subprocess
from typing import Any

import pytest

from services.dev.trouble import Trouble


def pids(fleet: Any) -> dict[str, int]:
    return {name: facts["pid"] for name, facts in fleet.ask("status")["services"].items()}


def test_a_killed_service_comes_back(fleet: Any) -> None:
    fleet.up()
    before = pids(fleet)

    os.kill(before["door"], signal.SIGKILL)

    facts = fleet.eventually(
        "door ready again", lambda: (f := fleet.facts("door")) and f["restarts"] == 1 and f["state"] == "ready" and f
    )
    assert facts["pid"] != before["door"]
    assert fleet.facts("worker")["pid"] == before["worker"], "the others are left alone"
    assert (fleet.home.run / "door.pid").read_text() == f"{facts['pid']}\n"


def test_one_that_keeps_dying_is_started_with_growing_pauses(fleet: Any) -> None:
    supervisor = fleet.up()
    for _ in range(3):
        pid = fleet.eventually("door is up", lambda: fleet.facts("door").get("pid"))
        os.kill(pid, signal.SIGKILL)
        fleet.eventually("its death is seen", lambda pid=pid: fleet.facts("door").get("pid") != pid)
    supervisor.send_signal(signal.SIGTERM)
    said, _ = supervisor.communicate(timeout=20)

    pauses = [line.rsplit("in ", 1)[1] for line in said.splitlines() if "door ended" in line]
    assert pauses == ["0.2 s", "0.4 s", "0.8 s"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_all_of_it(fleet: Any, number: signal.Signals) -> None:
    supervisor = fleet.up()
    children = pids(fleet)

    supervisor.send_signal(number)

    assert supervisor.wait(20) == 0
    assert not any(map(fleet.alive, children.values()))
    assert not fleet.home.is_held()
    assert fleet.written()["phase"] == "down"
    assert {facts["state"] for facts in fleet.written()["services"].values()} == {"down"}


def test_no_orphan_outlives_a_killed_supervisor(fleet: Any) -> None:
    supervisor = fleet.up(FLAW_WORKER="deaf")
    children = pids(fleet)

    supervisor.kill()
    supervisor.wait()

    for name, pid in children.items():
        fleet.eventually(f"{name} is gone", lambda pid=pid: not fleet.alive(pid))
    with pytest.raises(Trouble, match="not running"):
        fleet.ask("status")
    fleet.up()
    assert fleet.facts("door")["state"] == "ready", "the next one starts over what is left"


def test_a_second_one_says_where_the_first_is(fleet: Any) -> None:
    first = fleet.up()

    second = fleet.start()
    _, said = second.communicate(timeout=20)

    assert second.returncode == 1
    assert f"already running in {fleet.home.root} (pid {first.pid}; submission {fleet.base + 587})" in said
    assert len(said.splitlines()) == 1
    assert first.poll() is None


def test_a_taken_port_is_named_with_its_holder(fleet: Any) -> None:
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", fleet.base + 587))
        squatter.listen()
        late = fleet.start()
        _, said = late.communicate(timeout=20)

    assert late.returncode == 1
    assert f"port {fleet.base + 587} (door, submission) is taken by pid {os.getpid()} (" in said
    assert "POSTA_PORT_BASE" in said
    assert "Traceback" not in said


def test_bad_settings_end_the_start_with_the_services_own_line(fleet: Any) -> None:
    supervisor = fleet.start(FLAW_DOOR="bad settings")
    _, said = supervisor.communicate(timeout=20)

    assert supervisor.returncode == 1
    assert "door does not start: posta: POSTA_NONSENSE: unknown key" in said
    assert "Traceback" not in said


def test_a_service_that_loses_its_store_is_degraded_not_killed(fleet: Any) -> None:
    fleet.up()
    before = pids(fleet)

    fleet.away.touch()
    facts = fleet.eventually("degraded", lambda: (f := fleet.facts("door"))["state"] == "degraded" and f)
    assert (facts["reason"], facts["restarts"]) == ("database: away", 0)

    fleet.away.unlink()
    fleet.eventually("ready again", lambda: fleet.facts("door")["state"] == "ready")
    assert pids(fleet) == before


def test_one_service_stops_and_starts_by_itself(fleet: Any) -> None:
    fleet.up()
    before = pids(fleet)

    assert fleet.ask("stop", service="worker")["worker"]["state"] == "down"
    assert not fleet.alive(before["worker"])
    assert fleet.facts("door")["pid"] == before["door"]
    assert fleet.ask("start", service="worker")["worker"]["state"] == "ready"
    with pytest.raises(Trouble, match="no service is called nobody; there are worker, door"):
        fleet.ask("stop", service="nobody")


def test_processes_of_one_service_are_stopped_and_started_together_or_alone(fleet: Any) -> None:
    supervisor = fleet.up(REPLICAS="door=2")
    before = pids(fleet)
    assert list(before) == ["worker", "door-1", "door-2"]
    ports = [fleet.facts(f"door-{number}")["ports"] for number in (1, 2)]
    assert [each["health"] - fleet.base for each in ports] == [603, 663]
    assert {each["submission"] for each in ports} == {fleet.base + 587}

    assert fleet.ask("restart", service="door-2")["door-2"]["state"] == "ready"
    assert fleet.facts("door-2")["pid"] != before["door-2"]
    assert fleet.facts("door-1")["pid"] == before["door-1"]

    assert {name: facts["state"] for name, facts in fleet.ask("stop", service="door").items()} == {
        "door-1": "down",
        "door-2": "down",
    }
    assert list(fleet.ask("start", service="door")) == ["door-1", "door-2"]
    supervisor.kill()
    supervisor.wait()
    fleet.up()
    assert {path.stem for path in fleet.home.run.glob("*.pid")} == {"worker", "door"}, "no file of the earlier ones"


def test_a_port_that_others_share_is_taken(fleet: Any) -> None:
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        squatter.bind(("127.0.0.1", fleet.base + 587))
        squatter.listen()
        _, said = fleet.start(REPLICAS="door=2").communicate(timeout=20)

    assert f"port {fleet.base + 587} (door-1, submission) is taken by pid {os.getpid()} (" in said


def test_down_by_the_control_socket(fleet: Any) -> None:
    supervisor = fleet.up()

    assert fleet.ask("down")["pid"] == supervisor.pid

    assert supervisor.wait(20) == 0


def test_one_that_ignores_the_signal_is_killed(fleet: Any) -> None:
    supervisor = fleet.up(FLAW_DOOR="deaf")
    door = pids(fleet)["door"]

    supervisor.terminate()
    fleet.eventually("it was told", lambda: "deaf" in fleet.home.log_of("door").read_text())
    # Asked twice, the supervisor waits for nobody.
    supervisor.terminate()

    assert supervisor.wait(5) == 1
    fleet.eventually("door is gone", lambda: not fleet.alive(door))


def test_a_home_too_deep_for_a_socket_path_works(fleet: Any) -> None:
    fleet.home = type(fleet.home)(fleet.home.root / ("deep" * 30))
    fleet.env["POSTA_HOME"] = str(fleet.home.root)
    supervisor: subprocess.Popen[str] = fleet.up()

    assert fleet.facts("door")["state"] == "ready"
    supervisor.terminate()
    assert supervisor.wait(20) == 0
