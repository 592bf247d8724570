"""The plan's numbers: who listens where, and what a person may ask for."""

from collections import Counter

import pytest

from services.dev.engines import ENGINES
from services.dev.plan import MOST_REPLICAS, SERVICES, Plan, base_of
from services.dev.trouble import Trouble

ALL = ",".join(f"{service.name}={MOST_REPLICAS}" for service in SERVICES)


def test_no_two_have_one_port_however_many_there_are() -> None:
    plan = Plan(base_of({"POSTA_PORT_BASE": "64000"})).scaled(ALL)

    ports = Counter(port for _, _, port in plan.wanted(postgres=True, nats=True, dns=True, engines=ENGINES))

    assert set(ports.values()) == {1}
    assert max(ports) < 65536
    assert len({process.name for process in plan.processes()}) == MOST_REPLICAS * len(SERVICES)


def test_the_processes_of_a_service_share_its_doors_and_nothing_else() -> None:
    plan = Plan().scaled("imap=2, pop=1")

    first, second = (each for each in plan.processes() if each.service.name == "imap")
    assert (first.name, second.name) == ("imap-1", "imap-2")
    assert plan.ports(first) == {"imap": 2143, "imaps": 2993, "health": 2605}
    assert plan.ports(second) == {"imap": 2143, "imaps": 2993, "health": 2665}
    assert plan.environment(second)["POSTA_REUSE_PORT"] == "true"
    (alone,) = (each for each in plan.processes() if each.service.name == "pop")
    assert alone.name == "pop"
    assert "POSTA_REUSE_PORT" not in plan.environment(alone), "its port is its own, and taken says so"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("imap", "expected SERVICE=NUMBER with a number from 1 to 16, got 'imap'"),
        ("imap=", "got 'imap='"),
        ("imap=two", "got 'imap=two'"),
        ("imap=0", "got 'imap=0'"),
        ("imap=17", "got 'imap=17'"),
        ("imap=-1", "got 'imap=-1'"),
        ("imap=2²", "got 'imap=2²'"),
        ("=2", "no service that runs is called ''"),
        ("postgres=2", "no service that runs is called 'postgres'; there are delivery, filter"),
        ("pop=2", "no service that runs is called 'pop'"),
        ("imap=2,imap=3", "imap is named twice"),
    ],
)
def test_a_bad_number_of_processes_is_one_clear_line(words: str, says: str) -> None:
    with pytest.raises(Trouble) as refused:
        Plan().chosen(without="pop").scaled(words)

    assert refused.value.exit_code == 2
    assert says in str(refused.value)
    assert str(refused.value).startswith("--replicas: ")
