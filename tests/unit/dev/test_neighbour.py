"""When a platform can be shown with a neighbour, and where that one is."""

from __future__ import annotations

import pytest

from services.dev.neighbour import missing, plan_of, reached
from services.dev.plan import Plan


def test_the_neighbour_has_ports_of_its_own_wherever_the_platform_is() -> None:
    for base in (1, 2000, 59000, 59001, 64000):
        ours, theirs = Plan(base), plan_of(Plan(base))
        wanted = [{port for _, _, port in plan.wanted(True, True, True)} for plan in (ours, theirs)]
        assert not wanted[0] & wanted[1]
        assert max(wanted[1]) < 65536
        assert reached(ours) == {"POSTA_RELAY_PORT": str(theirs.mx_port)}


@pytest.mark.parametrize(
    ("without", "env", "says"),
    [
        ("", {}, ""),
        ("pop,sync", {}, ""),
        ("imap,mxrouter", {}, "without imap, mxrouter"),
        ("", {"POSTA_DNS_SERVERS": "127.0.0.1:53"}, "POSTA_DNS_SERVERS is set"),
        ("", {"POSTA_RELAY_PORT": "25"}, "POSTA_RELAY_PORT is set"),
    ],
)
def test_what_hinders(without: str, env: dict[str, str], says: str) -> None:
    found = missing(Plan().chosen(without=without), env)

    assert says in found
    assert bool(found) == bool(says)
