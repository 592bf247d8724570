"""The two ends of a connection, and the network by which a peer is counted. Pure."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network
from typing import NamedTuple


class Ends(NamedTuple):
    """Host and port."""

    host: str
    port: int


def end(address: tuple[object, ...]) -> Ends:
    """One end as the socket names it.

    A peer that came by IPv4 to a socket of both families is known by its IPv4 address, one on a link by that alone.
    """
    host = str(address[0]).partition("%")[0]
    return Ends(host.removeprefix("::ffff:") if "." in host else host, int(str(address[1])))


def network_of(host: str) -> str:
    """Who has one address has its neighbours as well: the /24 of IPv4, the /48 of IPv6; `host` itself if it is none."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    return str(ip_network(f"{address}/{48 if isinstance(address, IPv6Address) else 24}", strict=False))
