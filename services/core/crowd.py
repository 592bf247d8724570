"""How many connections a client and its network have, and how fast they come. Pure: the clock is an argument."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address

from services.core.ends import network_of

_MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class Limits:
    """0: no limit. A network is a /24 or a /48; `exempt` ones are not counted."""

    per_ip: int = 0
    per_network: int = 0
    per_minute: int = 0  # new connections of a network
    exempt: Sequence[IPv4Network | IPv6Network] = ()


class Pace:
    """What comes in one minute, counted by whom it comes from. `limit` 0: as much as they like."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._counts: Counter[str] = Counter()
        self._minute = -1

    def allows(self, key: str, now: float) -> bool:
        """Whether one more may come; it is counted either way."""
        if not self._limit:
            return True
        if (minute := int(now / _MINUTE_S)) != self._minute:
            self._minute = minute
            self._counts.clear()
        self._counts[key] += 1
        return self._counts[key] <= self._limit


class Crowd:
    """Those who are connected to one listener."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._open: Counter[str] = Counter()
        self._arrivals = Pace(limits.per_minute)

    def enter(self, host: str, now: float) -> bool:
        """Whether one more may come; if so it is counted until `leave`."""
        limits = self._limits
        if self._is_exempt(host):
            return True
        network = network_of(host)
        if not self._arrivals.allows(network, now):
            return False
        for key, limit in ((host, limits.per_ip), (network, limits.per_network)):
            if limit and self._open[key] >= limit:
                return False
        self._open.update((host, network))
        return True

    def leave(self, host: str) -> None:
        """One that had entered is gone."""
        if self._is_exempt(host):
            return
        for key in (host, network_of(host)):
            self._open[key] -= 1
            if self._open[key] <= 0:
                del self._open[key]

    def _is_exempt(self, host: str) -> bool:
        if not (self._limits.per_ip or self._limits.per_network or self._limits.per_minute):
            return True
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._limits.exempt)
