"""The keys and the secret that the way out signs with, out of the store, remembered in every process."""

from __future__ import annotations

import asyncio

from pydantic import SecretStr

from services.contracts.v1.mail_pb2 import DirectoryChanged
from services.core.bus import directory_changed
from services.core.cache import Cache
from services.core.directory import Hints
from services.core.dkim.keys import SigningKey, load
from services.core.srs import Rewriter
from services.core.store import dkim, secrets
from services.core.store.engine import Store

_SIZE, _TTL_S = 10_000, 60.0


class Keyring:
    """One per process. Its methods raise `StoreUnavailable`; what is remembered is forgotten when provisioning says so.

    A lost announcement costs a minute, in which the pair before still signs: its records are in the DNS for days.
    """

    def __init__(self, store: Store, bus: Hints, key_secret: SecretStr | None, srs_secret: SecretStr | None) -> None:
        """The two secrets as `dkim.key_secret` and `srs.secret` are set."""
        self._store, self._bus = store, bus
        self._key_secret = key_secret.get_secret_value() if key_secret else None
        self._keys: Cache[str, tuple[SigningKey, ...]] = Cache(_SIZE, _TTL_S)
        self._rewriter = Rewriter(srs_secret.get_secret_value().encode()) if srs_secret else None

    async def start(self) -> None:
        """Listen for changes; to be awaited once before the first question."""
        await self._bus.subscribe_hint(directory_changed(), DirectoryChanged, self._changed)

    async def keys(self, domain: str) -> tuple[SigningKey, ...]:
        """What signs for the domain now; empty where nothing does. Raises `KeyUnusable`."""
        return await self._keys.get(domain, lambda: self._ask(domain))

    async def rewriter(self) -> Rewriter:
        """The one that every process has; the first to ask makes its secret."""
        if self._rewriter is None:
            async with self._store.begin("keyring.srs") as conn:
                self._rewriter = Rewriter((await secrets.get_or_make(conn, secrets.SRS)).encode())
        return self._rewriter

    def _changed(self, hint: DirectoryChanged) -> None:
        if hint.domain:
            self._keys.forget(lambda domain, _: domain == hint.domain)
        elif not hint.account_id:
            self._keys.forget()

    async def _ask(self, domain: str) -> tuple[SigningKey, ...]:
        async with self._store.query("keyring.dkim") as conn:
            rows = await dkim.signers(conn, domain)
        # Opening an encrypted key, and checking an RSA key, take their time on purpose.
        return tuple([await asyncio.to_thread(load, domain, *row, self._key_secret) for row in rows])
