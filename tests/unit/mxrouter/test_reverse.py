"""The name of an address, and what is said where the DNS says nothing."""

import asyncio

import pytest

from services.core.dns import Answer
from services.mxrouter import reverse as module
from services.mxrouter.reverse import Reverse, reverse
from tests.unit.filter.origin.zone import DEAD, Zone

PTR = "1.2.0.192.in-addr.arpa"


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ({PTR: ["PTR Mx.Example."], "mx.example": ["A 192.0.2.1"]}, Reverse("mx.example", "pass")),
        ({PTR: ["PTR mx.example."], "mx.example": ["A 192.0.2.2"]}, Reverse("mx.example", "fail")),
        ({PTR: ["PTR mx.example."]}, Reverse("mx.example", "fail")),
        ({PTR: ["PTR a.example.", "PTR b.example."], "b.example": ["A 192.0.2.1"]}, Reverse("b.example", "pass")),
        ({PTR: ["PTR a.example.", "PTR b.example."], "a.example": [DEAD], "b.example": ["A 192.0.2.1"]},
         Reverse("b.example", "pass")),
        ({PTR: ["PTR a.example."], "a.example": [DEAD]}, Reverse("", "temperror")),
        ({PTR: [DEAD]}, Reverse("", "temperror")),
        ({PTR: ["TXT x"]}, Reverse("", "permerror")),
        ({}, Reverse("", "permerror")),
    ],
)  # fmt: skip
async def test_names(records: dict[str, list[str]], expected: Reverse) -> None:
    assert await reverse(Zone(records), "192.0.2.1") == expected


async def test_ipv6() -> None:
    arpa = "1." + "0." * 23 + "8.b.d.0.1.0.0.2.ip6.arpa"
    zone = Zone({arpa: ["PTR mx.example."], "mx.example": ["AAAA 2001:db8::1"]})
    assert await reverse(zone, "2001:db8::1") == Reverse("mx.example", "pass")


async def test_many_names_cost_little() -> None:
    zone = Zone({PTR: [f"PTR h{n}.example." for n in range(100)]})
    assert (await reverse(zone, "192.0.2.1")).result == "fail"
    assert len(zone.asked) == 6


async def test_a_dead_dns_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent:
        async def query(self, name: str, kind: str) -> Answer:
            await asyncio.Event().wait()
            raise AssertionError

    monkeypatch.setattr(module, "_PATIENCE_S", 0.01)
    assert await reverse(Silent(), "192.0.2.1") == Reverse("", "temperror")


async def test_what_is_no_address_has_no_name() -> None:
    assert (await reverse(Zone({}), "nonsense")).result == "temperror"
