"""What a login is made of, and how it can fail."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network

from services.core.ids import AccountId


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks: an IP address without port, and the door's protocol ("imap", "pop", "submission", "sync")."""

    address: str
    protocol: str


@dataclass(frozen=True, slots=True)
class Login:
    """A verified user. `scopes`: protocols the credential is good for; none named: all."""

    account_id: AccountId
    address: str
    display_name: str
    scopes: frozenset[str]


class AuthError(Exception):
    """A login that did not happen, for one of the reasons below; each door has its reply to each."""


class AuthFailed(AuthError):
    """Name and password do not belong together, or may not be used here. Says no more, on purpose."""


class AuthUnavailable(AuthError):
    """The store cannot be asked now; the client should keep its password and try later."""


class AuthThrottled(AuthError):
    """Too many wait already to be told that they failed; trying before `retry_s` has no use."""

    def __init__(self, retry_s: float) -> None:
        super().__init__(f"try again in {retry_s:.0f} s")
        self.retry_s = retry_s


class MechanismUnknown(AuthError):
    """No SASL mechanism of that name."""


class ExchangeBroken(AuthError):
    """The client's words do not follow the mechanism; the text says where, fit for a reply."""


class Cancelled(AuthError):
    """The client gave up the exchange with "*"."""


@lru_cache(maxsize=65_536)
def network_of(address: str) -> str:
    """The network that failures are counted for: /24 of IPv4, /64 of IPv6; what is no address stands for itself."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return str(ip_network((ip, 24 if ip.version == 4 else 64), strict=False))
