"""Where an address leads: to an account, to several places, elsewhere, or nowhere. Cached in every process.

An answer is kept for a minute and forgotten at once when provisioning announces a change; a lost announcement costs
that minute. `announce` stands here too, so that both ends of it read on one page.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

from google.protobuf.message import Message
from pydantic import SecretStr

from services.contracts.v1.mail_pb2 import DirectoryChanged
from services.core import srs
from services.core.address import Address, BadAddress, parse
from services.core.bus import directory_changed
from services.core.cache import Cache
from services.core.ids import AccountId
from services.core.store import accounts, places, secrets
from services.core.store.accounts import NoSuchAccount
from services.core.store.engine import Connection, Store

DEPTH = 10  # aliases that lead to aliases; deeper is nowhere
_SIZE, _TTL_S = 50_000, 60.0
# "Unknown" is a permanent refusal: an account made while the bus was away must not be refused for a minute.
_UNKNOWN_TTL_S = 5.0
_ROOM_TTL_S = 2.0

M = TypeVar("M", bound=Message)


class Hints(Protocol):
    """What this needs of the bus."""

    async def subscribe_hint(
        self, subject: str, cls: type[M], handler: Callable[[M], Awaitable[None] | None]
    ) -> object: ...

    def publish_hint(self, subject: str, message: Message) -> bool: ...


@dataclass(frozen=True, slots=True)
class Local:
    """One account. `address` is its primary address, whatever it was found by."""

    account_id: AccountId
    address: str
    quota_octets: int | None


@dataclass(frozen=True, slots=True)
class Remote:
    """A domain that is not ours; `address` as it is to be written to that domain's host."""

    address: Address

    @property
    def domain(self) -> str:
        return self.address.domain


@dataclass(frozen=True, slots=True)
class Expanded:
    """An alias, forward or list: every place it leads to, each once, at least one.

    Also an address that a forward of ours was sent under: it leads to whoever sent the mail.
    """

    targets: tuple[Local | Remote, ...]


@dataclass(frozen=True, slots=True)
class Suspended:
    """An account that takes no mail for now; also an alias that leads to such accounts only."""

    address: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The domain is ours and has no such address, or one that leads nowhere."""


Resolution: TypeAlias = Local | Expanded | Remote | Suspended | Unknown
_UNKNOWN = Unknown()


class Directory:
    """One per process. Every method raises `StoreUnavailable` when it must ask Postgres and cannot."""

    def __init__(
        self,
        store: Store,
        bus: Hints,
        srs_secret: SecretStr | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`srs_secret`: as `srs.secret` is set; without it, the one that the store may have made."""
        self._store, self._bus, self._srs_secret, self._clock = store, bus, srs_secret, clock
        self._resolved: Cache[Address, Resolution] = Cache(_SIZE, _TTL_S)
        self._foreign: Cache[str, bool] = Cache(_SIZE, _UNKNOWN_TTL_S)  # domains that are not ours: true
        self._owned: Cache[AccountId, frozenset[str]] = Cache(_SIZE, _TTL_S)
        self._rooms: Cache[AccountId, tuple[int | None, int]] = Cache(_SIZE, _ROOM_TTL_S)

    async def start(self) -> None:
        """Listen for changes; to be awaited once before the first question."""
        await self._bus.subscribe_hint(directory_changed(), DirectoryChanged, self._changed)

    async def resolve(self, address: Address) -> Resolution:
        """Where mail for the address goes.

        The exact address first, then the one without its subaddress (`bob+tag@` is `bob@`, RFC 5233), then the
        catch-all; aliases are followed `DEPTH` deep and never round. Targets of an alias that lead nowhere are left
        out while others remain. A rewritten sender of a domain of ours leads back to the sender it stands for, and
        nowhere unless we made it in the last `srs.KEEP_DAYS` days.
        """
        kept = self._resolved.peek(address)
        if kept is not None:
            return kept
        if self._foreign.peek(address.domain):
            return Remote(address)
        return await self._resolved.get(address, lambda: self._ask(address), _how_long)

    async def may_send_as(self, account_id: AccountId, address: Address) -> bool:
        """Whether the account may call itself that: exactly when mail for it would reach this account alone."""
        match await self.resolve(address):
            case Local(account_id=owner):
                return owner == account_id
            case Expanded(targets=(Local(account_id=owner),)):
                return owner == account_id
            case _:
                return False

    async def owned_by(self, account_id: AccountId) -> frozenset[str]:
        """The addresses of the account and the aliases that lead to it alone; a catch-all as "@domain".

        For lists of identities; to judge one address, which may have a subaddress, ask `may_send_as`.
        """
        return await self._owned.get(account_id, lambda: self._ask_owned(account_id))

    async def room(self, account_id: AccountId) -> int | None:
        """Octets that the account's quota leaves, never below 0, at most 2 s old; None: no quota.

        Raises `NoSuchAccount`.
        """
        quota, used = await self._rooms.get(account_id, lambda: self._ask_room(account_id))
        return None if quota is None else max(0, quota - used)

    def _changed(self, hint: DirectoryChanged) -> None:
        # All of it: a chain of aliases crosses domains and accounts, and asking again is one statement an address.
        self._resolved.forget()
        self._foreign.forget()
        self._owned.forget()
        self._rooms.forget()

    async def _ask_owned(self, account_id: AccountId) -> frozenset[str]:
        async with self._store.query("directory.owned") as conn:
            return await places.owned(conn, account_id)

    async def _ask_room(self, account_id: AccountId) -> tuple[int | None, int]:
        async with self._store.query("directory.room") as conn:
            return await places.usage(conn, account_id)

    async def owns(self, domain: str) -> bool:
        """Whether mail for the domain is ours to take."""
        return not isinstance(await self.resolve(Address("postmaster", domain)), Remote)

    async def _ask(self, address: Address) -> Resolution:
        age = self._foreign.age
        async with self._store.query("directory.resolve") as conn:
            if srs.is_rewritten(address) and await places.places(conn, [address.key], [address.domain]):
                return await self._returned(conn, address)
            walk = _Walk(address)
            for _ in range(DEPTH + 1):
                if not walk.open:
                    break
                keys = list({key for each in walk.open for key in _candidates(each)})
                walk.step(await places.places(conn, keys, list({each.domain for each in walk.open})))
        result = walk.result()
        if isinstance(result, Remote):
            self._foreign.put(address.domain, True, age)
        return result

    async def _returned(self, conn: Connection, address: Address) -> Resolution:
        given = self._srs_secret.get_secret_value() if self._srs_secret else await secrets.get(conn, secrets.SRS)
        sender = srs.Rewriter(given.encode()).reverse(address, self._clock()) if given else None
        return Expanded((Remote(sender),)) if sender else _UNKNOWN


class _Walk:
    """One address followed through its aliases, a level at a time. Holds no connection."""

    def __init__(self, start: Address) -> None:
        self._start = start
        self.open = [start]
        self._been = {start.key}
        self._aliased = False
        self._suspended = ""
        self._ends: dict[object, Local | Remote] = {}

    def step(self, rows: Sequence[places.Place]) -> None:
        """Take what the store knows of the open addresses; the next level stands in `open`."""
        ours = {row.domain for row in rows}
        found: dict[str, list[places.Place]] = {}
        for row in rows:
            if row.address is not None:
                found.setdefault(row.address, []).append(row)
        level, self.open = self.open, []
        for address in level:
            if address.domain not in ours:
                self._ends.setdefault(address.key, Remote(address))
            elif hit := next((found[key] for key in _candidates(address) if key in found), None):
                self._take(hit)

    def _take(self, rows: Sequence[places.Place]) -> None:
        for row in rows:
            if row.account_id is None:
                self._follow(row.target or "")
            elif row.status == accounts.SUSPENDED:
                self._suspended = row.primary or ""
            elif row.primary is not None:
                self._ends.setdefault(row.account_id, Local(row.account_id, row.primary, row.quota_octets))

    def _follow(self, target: str) -> None:
        self._aliased = True
        try:
            address = parse(target)
        except BadAddress:
            return
        if address.key not in self._been:
            self._been.add(address.key)
            self.open.append(address)

    def result(self) -> Resolution:
        """What the walk has come to; what is still open is too deep."""
        if self._ends:
            ends = tuple(self._ends.values())
            return Expanded(ends) if self._aliased else ends[0]
        return Suspended(self._suspended) if self._suspended else _UNKNOWN


def _candidates(address: Address) -> tuple[str, str, str]:
    return address.key, address.subaddress()[0].key, f"@{address.domain}"


def _how_long(answer: Resolution) -> float:
    return _UNKNOWN_TTL_S if isinstance(answer, Unknown) else _TTL_S


async def announce(bus: Hints, *, domain: str = "", account_id: AccountId | None = None) -> bool:
    """Tell every cache, after the commit, that something of the domain, the account, or (neither) anything changed.

    False: the bus is away, and caches go on with what they have until it expires.
    """
    return bus.publish_hint(directory_changed(), DirectoryChanged(domain=domain, account_id=account_id or 0))


__all__ = [
    "Directory",
    "Expanded",
    "Hints",
    "Local",
    "NoSuchAccount",
    "Remote",
    "Resolution",
    "Suspended",
    "Unknown",
    "announce",
]
