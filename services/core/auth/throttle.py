"""How long a login has to wait for those that failed before it.

Two counts rise with a failure: the account's and the client network's. Each has some failures free, then the wait
doubles from one second to the longest. But a network from which the account has logged in before has its own count for
that account and heeds no other: strangers who guess, or a neighbour in the same network who tries other accounts, make
nobody wait but themselves. Whoever guesses from the owner's own network slows the owner there, and never locks out.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import NamedTuple

from services.core.auth.login import AuthThrottled
from services.core.settings import Login as Limits
from services.core.store import throttle as failures
from services.core.store.engine import Store

TRUST_S = 30 * 86_400.0
WAITING, WAITING_PER_KEY = 512, 8


class Keys(NamedTuple):
    """What one attempt is counted under."""

    account: str
    network: str
    known: str


def keys_of(name: str, network: str) -> Keys:
    """`name`: the account's primary address, or the name as given if it is nobody's."""
    return Keys(f"account:{name}", f"net:{network}", f"known:{name} {network}")


def wait_s(counts: Mapping[str, int], keys: Keys, pending: Mapping[str, int], limits: Limits) -> float:
    """Seconds to wait, from failures and from attempts still `pending`, which may fail yet."""
    if keys.known in counts:
        own = counts[keys.known] + pending.get(keys.known, 0)
        return _delay_s(own, limits.failures_per_account, limits.max_delay_s)
    account = counts.get(keys.account, 0) + pending.get(keys.account, 0)
    return max(
        _delay_s(account, limits.failures_per_account, limits.max_delay_s),
        _delay_s(counts.get(keys.network, 0), limits.failures_per_network, limits.max_delay_s),
    )


def _delay_s(count: int, free: int, longest_s: float) -> float:
    return 0.0 if count < free else min(longest_s, 2.0 ** min(count - free, 16))


class Throttle:
    """One per process; counts are shared through the store. Every method raises `StoreUnavailable`."""

    def __init__(self, store: Store, limits: Limits, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._store, self._limits, self._sleep = store, limits, sleep
        self._pending: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()
        self._swept = monotonic()

    @contextmanager
    def attempt(self, keys: Keys) -> Iterator[None]:
        """Within: this attempt counts as one that may fail, for those that come meanwhile."""
        with _counted(self._pending, keys.known), _counted(self._pending, keys.account):
            yield

    async def wait(self, keys: Keys) -> bool:
        """Wait as long as this attempt has to; says whether that was any time at all. Within `attempt`.

        Raises `AuthThrottled` when too many wait already: a waiting client holds a connection.
        """
        async with self._store.query("throttle.counts") as conn:
            counts = await failures.counts(conn, keys, self._limits.window_s)
        # The attempt itself is pending too, and waits for those before it only.
        others = {key: self._pending[key] - 1 for key in (keys.account, keys.known)}
        delay_s = wait_s(counts, keys, others, self._limits)
        if delay_s == 0:
            return False
        if self._waiting.total() >= WAITING or self._waiting[keys.account] >= WAITING_PER_KEY:
            raise AuthThrottled(delay_s)
        with _counted(self._waiting, keys.account):
            await self._sleep(delay_s)
        return True

    async def failed(self, keys: Keys) -> None:
        """Count a failure: for a network that the account knows, for it alone; else for account and network."""
        async with self._store.query("throttle.failed") as conn:
            known = await failures.counts(conn, [keys.known], self._limits.window_s)
            await failures.count(conn, [keys.known] if known else [keys.account, keys.network], self._limits.window_s)
            if monotonic() - self._swept > self._limits.window_s:
                self._swept = monotonic()
                await failures.sweep(conn, self._limits.window_s, TRUST_S)

    async def succeeded(self, keys: Keys) -> None:
        """Remember the network as the account's. The account's own count stays: it is of other networks."""
        async with self._store.query("throttle.succeeded") as conn:
            await failures.trust(conn, keys.known)


@contextmanager
def _counted(counter: Counter[str], key: str) -> Iterator[None]:
    counter[key] += 1
    try:
        yield
    finally:
        counter[key] -= 1
        if not counter[key]:
            del counter[key]
