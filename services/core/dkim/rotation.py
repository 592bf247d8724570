"""How a domain's keys follow one another: made, shown by the DNS, signed with, retired, removed.

Safe overlap: a new pair signs nothing until the DNS shows its records, and the old pair's records stay for `KEEP_DAYS`
after the last signature, which is longer than any mail is on its way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from pydantic import SecretStr

from services.core import address
from services.core.dkim import zone
from services.core.dkim.keys import ED25519, RSA, Made, adopt, make
from services.core.dns import Dns, DnsError, NoSuchName
from services.core.store import dkim
from services.core.store.dkim import Key
from services.core.store.engine import Store

KEEP_DAYS = 7  # RFC 5321 4.5.4.1: senders give up after four to five days; receivers may check some time later
_CHANGE, _LOOK = "dkim.change", "dkim.look"


class RotationRefused(Exception):
    """What was asked cannot be done now; the text says why and what to do."""


class Rotation:
    """One per process that administers. Every method raises `NoSuchDomain`, `BadAddress`, `StoreUnavailable`.

    Whoever calls tells the caches after each change: `directory.announce`.
    """

    def __init__(self, store: Store, resolver: Callable[[], Dns], secret: SecretStr | None) -> None:
        """`resolver` makes one without memory: whoever activates keys has just changed the zone."""
        self._store, self._resolver = store, resolver
        self._secret = secret.get_secret_value() if secret else None

    async def keys(self, domain: str) -> list[Key]:
        """The domain's keys, the oldest first; none is made."""
        async with self._store.query(_LOOK) as conn:
            return await dkim.list_keys(conn, address.domain(domain))

    async def first(self, domain: str) -> list[Key]:
        """The domain's keys; where there are none a pair is made, to be published."""
        return await self.keys(domain) or await self._publish(domain, only_first=True)

    async def rotate(self, domain: str) -> list[Key]:
        """Make the next pair, unless one waits for its records already; all keys of the domain."""
        return await self._publish(domain, only_first=False)

    async def adopt(self, domain: str, selector: str, pem: str) -> list[Key]:
        """Keep a key that another signer has used for the domain, to be activated; all keys of the domain.

        Raises `RotationRefused` where the domain has a key of that selector, and `KeyUnusable`.
        """
        name, label = address.domain(domain), address.domain(selector)
        made = await asyncio.to_thread(adopt, pem, self._secret)
        async with self._store.begin(_CHANGE) as conn:
            await dkim.lock(conn, name)
            if any(key.selector == label for key in await dkim.list_keys(conn, name)):
                raise RotationRefused(f"{name} has a key {label} already")
            await dkim.add(conn, name, label, **made._asdict())
            return await dkim.list_keys(conn, name)

    async def activate(self, domain: str, *, force: bool = False) -> list[Key]:
        """Sign with the published pair from now on and retire the old one; all keys of the domain.

        Raises `RotationRefused` where none is published, and, unless forced, where the DNS does not show its records.
        """
        waiting = [key for key in await self.keys(domain) if key.state == dkim.PUBLISHED]
        if not waiting:
            raise RotationRefused(f"no keys of {domain} wait to be activated")
        if not force:
            await self._shown(waiting)
        name = waiting[0].domain
        async with self._store.begin(_CHANGE) as conn:
            await dkim.lock(conn, name)
            # Another may have activated them meanwhile; then they sign already, and nothing is left to be done.
            still = {key.selector for key in await dkim.list_keys(conn, name) if key.state == dkim.PUBLISHED}
            if wanted := [key.selector for key in waiting if key.selector in still]:
                await dkim.activate(conn, name, wanted)
            return await dkim.list_keys(conn, name)

    async def remove(self, domain: str) -> list[Key]:
        """Delete what has been retired for `KEEP_DAYS`; those keys, whose records may leave the zone.

        Raises `RotationRefused` where there are none.
        """
        name = address.domain(domain)
        async with self._store.begin(_CHANGE) as conn:
            await dkim.lock(conn, name)
            removed = await dkim.remove_retired(conn, name, KEEP_DAYS * 86400.0)
        if not removed:
            raise RotationRefused(f"no keys of {name} have been retired for {KEEP_DAYS} days")
        return removed

    async def _publish(self, domain: str, *, only_first: bool) -> list[Key]:
        name = address.domain(domain)
        known = await self.keys(name)  # before any work is done for a domain that is not ours
        if any(key.state == dkim.PUBLISHED for key in known):
            return known
        pair = await asyncio.to_thread(_pair, self._secret)
        async with self._store.begin(_CHANGE) as conn:
            await dkim.lock(conn, name)
            known = await dkim.list_keys(conn, name)
            if any(key.state == dkim.PUBLISHED for key in known) or (known and only_first):
                return known
            taken = {key.selector for key in known}
            base = _selector(datetime.now(UTC), taken)
            for made in pair:
                await dkim.add(conn, name, f"{base}-{made.algorithm}", **made._asdict())
            return await dkim.list_keys(conn, name)

    async def _shown(self, keys: Sequence[Key]) -> None:
        """Raise `RotationRefused` unless the DNS shows every record."""
        dns = self._resolver()
        faults = [fault for fault in await asyncio.gather(*(unshown(dns, key) for key in keys)) if fault]
        if faults:
            raise RotationRefused("; ".join(faults))


async def unshown(dns: Dns, key: Key) -> str:
    """What is wrong with the record of a key; empty where it is as it should be."""
    name = zone.name(key.domain, key.selector)
    try:
        answer = await dns.query(name, "TXT")
    except NoSuchName:
        return f"the DNS does not show {name}"
    except DnsError as error:
        return f"the DNS does not answer about {name} ({error})"
    if not zone.shows((getattr(record, "strings", ()) for record in answer.records), key.public_key):
        return f"the DNS shows another record at {name}" if answer.records else f"the DNS does not show {name}"
    return ""


def _pair(secret: str | None) -> tuple[Made, ...]:
    return tuple(make(algorithm, secret) for algorithm in (RSA, ED25519))


def _selector(now: datetime, taken: set[str]) -> str:
    """A name by the day that no key of the domain has, for a pair: its keys add their algorithm."""
    day, n = now.strftime("%Y%m%d"), 1
    while any(selector.startswith(f"{_numbered(day, n)}-") for selector in taken):
        n += 1
    return _numbered(day, n)


def _numbered(day: str, n: int) -> str:
    return day if n == 1 else f"{day}n{n}"
