"""Who is one too many: counted by address, by network, by minute."""

from ipaddress import ip_network

import pytest

from services.core.crowd import Crowd, Limits
from services.core.ends import end, network_of


@pytest.mark.parametrize(
    ("address", "host"),
    [
        (("192.0.2.1", 25), "192.0.2.1"),
        (("::ffff:192.0.2.1", 25, 0, 0), "192.0.2.1"),
        (("2001:db8::1", 25, 0, 0), "2001:db8::1"),
        (("fe80::1%eth0", 25, 0, 2), "fe80::1"),
    ],
)
def test_ends(address: tuple[object, ...], host: str) -> None:
    assert end(address) == (host, 25)


def test_networks() -> None:
    assert network_of("192.0.2.77") == "192.0.2.0/24"
    assert network_of("2001:db8:1:2::3") == "2001:db8:1::/48"
    assert network_of("nonsense") == "nonsense"


def test_an_address_has_so_many_places() -> None:
    crowd = Crowd(Limits(per_ip=2))
    assert [crowd.enter("192.0.2.1", 0) for _ in range(3)] == [True, True, False]
    assert crowd.enter("192.0.2.2", 0)
    crowd.leave("192.0.2.1")
    assert crowd.enter("192.0.2.1", 0)
    assert not crowd.enter("192.0.2.1", 0)


def test_so_has_its_network() -> None:
    crowd = Crowd(Limits(per_network=2))
    assert [crowd.enter(f"192.0.2.{n}", 0) for n in range(3)] == [True, True, False]
    assert [crowd.enter(f"2001:db8:0:{n}::1", 0) for n in range(3)] == [True, True, False]
    assert crowd.enter("192.0.3.1", 0)
    crowd.leave("192.0.2.0")
    assert crowd.enter("192.0.2.200", 0)


def test_so_many_may_come_in_a_minute() -> None:
    crowd = Crowd(Limits(per_minute=2))
    for n in range(4):
        assert crowd.enter(f"192.0.2.{n}", 10 + n) is (n < 2)
        if n < 2:
            crowd.leave(f"192.0.2.{n}")
    assert crowd.enter("198.51.100.1", 30)
    assert crowd.enter("192.0.2.1", 60)


def test_some_are_not_counted() -> None:
    crowd = Crowd(Limits(1, 1, 1, exempt=[ip_network("10.0.0.0/8")]))
    assert all(crowd.enter("10.1.2.3", 0) for _ in range(100))
    crowd.leave("10.1.2.3")
    assert crowd.enter("192.0.2.1", 0)
    assert not crowd.enter("192.0.2.1", 0)


def test_nothing_is_kept_of_those_who_left() -> None:
    crowd = Crowd(Limits(5, 5))
    for n in range(200):
        crowd.enter(f"10.{n}.0.1", 0)
        crowd.leave(f"10.{n}.0.1")
    assert not crowd._open
