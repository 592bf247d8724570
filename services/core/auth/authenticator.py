"""Checks what a client claims, from memory when it can."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

from services.contracts.v1.mail_pb2 import DirectoryChanged
from services.core.address import BadAddress, parse
from services.core.auth import passwords, scram
from services.core.auth.login import AuthFailed, AuthUnavailable, Client, Login, network_of
from services.core.auth.tally import Tally
from services.core.auth.throttle import Keys, Throttle, keys_of
from services.core.bus import directory_changed
from services.core.cache import Cache
from services.core.directory import Hints
from services.core.ids import AccountId
from services.core.settings import Settings
from services.core.store import accounts, credentials
from services.core.store.credentials import Found, Key, Owner
from services.core.store.engine import Store, StoreUnavailable
from services.core.telemetry import Metrics

_SIZE = 50_000
_NAME_OCTETS = 320


class _Verified(NamedTuple):
    login: Login
    name: str


class _Known(NamedTuple):
    owner: Owner
    name: str


@dataclass(frozen=True, slots=True)
class Offer:
    """What a SCRAM client is told before it proves anything, and what its proof will be checked against."""

    salt: bytes
    iterations: int
    name: str
    kept: Owner | None  # known from an earlier login from the same network


class Authenticator:
    """One per process. A login that succeeded is known to this process for `login.cache_s`, or until announced."""

    def __init__(
        self,
        store: Store,
        bus: Hints,
        settings: Settings,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        workers: passwords.Workers | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """`sleep` stands in for waiting in tests; `workers` hash, made here if not given; `metrics` count logins."""
        self._tally = Tally(metrics)
        self._store, self._bus, self._limits = store, bus, settings.login
        self._workers = workers or passwords.Workers()
        self._throttle = Throttle(store, settings.login, sleep)
        self._secret = secrets.token_bytes(32)
        self._verified: Cache[bytes, _Verified] = Cache(_SIZE, settings.login.cache_s)
        self._scram: Cache[tuple[str, str], _Known] = Cache(_SIZE, settings.login.cache_s)
        # Wrong guesses from a network at a name that this process knows: past the free ones, memory answers nobody
        # there, or a guesser in the owner's network could try as fast as it can send.
        self._wrong: Cache[tuple[str, str], int] = Cache(_SIZE, settings.login.window_s)

    async def start(self) -> None:
        """Listen for changes; to be awaited once before the first login."""
        await self._bus.subscribe_hint(directory_changed(), DirectoryChanged, self._changed)

    def close(self) -> None:
        """Stop the hashing threads."""
        self._workers.close()

    async def verify(self, username: str, password: str, client: Client) -> Login:
        """Whose password this is; `username` is an address of the account, or an alias that leads to it alone.

        Raises `AuthFailed`, `AuthUnavailable`, `AuthThrottled`. May take as long as `login.max_delay_s`. A cancelled
        caller changes nothing: the attempt is finished and counted.
        """
        with self._tally.login():
            return await self._checked(username, password, client)

    async def _checked(self, username: str, password: str, client: Client) -> Login:
        network = network_of(client.address)
        # The name as typed stands in for account and credential: it is what is known before Postgres is asked. The
        # network is part of it because an answer from memory is not slowed.
        claim = f"{network}\0{username}\0{password}".encode("utf-8", "surrogatepass")
        key = hmac.digest(self._secret, claim, "sha256")
        try:
            if self._guessed(network, username):
                verified = await self._verify(username, password, network)
            else:
                verified = self._verified.peek(key) or await self._verified.get(
                    key, lambda: self._verify(username, password, network)
                )
        except StoreUnavailable as error:
            raise AuthUnavailable("the store cannot be asked") from error
        return _allowed(verified.login, client)

    async def scram_offer(self, username: str, client: Client) -> Offer:
        """Salt and iteration count for the name; a name that nobody has gets some as lasting as real ones.

        Raises `AuthUnavailable`.
        """
        name = _canonical(username)
        known = self._scram.peek((network_of(client.address), name))
        if known is not None:
            secret = known.owner.keys[0].secret
            return Offer(secret.scram_salt, secret.scram_iterations, name, known.owner)
        try:
            found = await self._find(name)
        except StoreUnavailable as error:
            raise AuthUnavailable("the store cannot be asked") from error
        if found.owner is not None and found.owner.keys:
            secret = found.owner.keys[0].secret
            return Offer(secret.scram_salt, secret.scram_iterations, name, None)
        salt = hmac.digest(found.pepper, name.encode("utf-8", "surrogatepass"), "sha256")[: scram.SALT_OCTETS]
        return Offer(salt, scram.ITERATIONS, name, None)

    async def scram_verify(
        self, offer: Offer, client: Client, auth_message: bytes, proof: bytes
    ) -> tuple[Login, bytes]:
        """Who proved to know a password, and the signature that the client expects in return.

        Raises `AuthFailed`, `AuthUnavailable`, `AuthThrottled`; slow as `verify` is.
        """
        with self._tally.login():
            return await self._proven(offer, client, auth_message, proof)

    async def _proven(self, offer: Offer, client: Client, auth_message: bytes, proof: bytes) -> tuple[Login, bytes]:
        network = network_of(client.address)
        owner, key = offer.kept, None
        if owner is not None and not self._guessed(network, offer.name):
            key = _proved(owner, auth_message, proof)
        if owner is None or key is None:
            try:
                owner, key = await self._prove(offer.name, network, auth_message, proof)
            except StoreUnavailable as error:
                raise AuthUnavailable("the store cannot be asked") from error
        login = _allowed(_login(owner, key), client)
        return login, scram.server_signature(key.secret.scram_server_key, auth_message)

    # ---- the slow way ------------------------------------------------------------------------------------------

    async def _verify(self, username: str, password: str, network: str) -> _Verified:
        name = _canonical(username)

        async def check(owner: Owner | None) -> Key | None:
            keys = owner.keys if owner is not None else ()
            key, rehashed = await self._workers.run(lambda: passwords.matching(keys, password))
            if owner is not None and key is not None and rehashed is not None:
                await self._rehash(owner.account_id, key, rehashed)
            return key

        owner, key = await self._attempt(name, username, network, check)
        return _Verified(_login(owner, key), name)

    async def _prove(self, name: str, network: str, auth_message: bytes, proof: bytes) -> tuple[Owner, Key]:
        async def check(owner: Owner | None) -> Key | None:
            return None if owner is None else _proved(owner, auth_message, proof)

        age = self._scram.age
        owner, key = await self._attempt(name, name, network, check)
        self._scram.put((network, name), _Known(owner, name), age)
        return owner, key

    async def _attempt(
        self, name: str, typed: str, network: str, check: Callable[[Owner | None], Awaitable[Key | None]]
    ) -> tuple[Owner, Key]:
        owner = (await self._find(name)).owner
        counted = keys_of(owner.address if owner is not None else name, network)
        with self._throttle.attempt(counted):
            if await self._throttle.wait(counted):
                owner = (await self._find(name)).owner  # the password may have changed meanwhile
            key = await check(owner)
            if owner is None or key is None:
                await self._failed(counted, typed, network)
                raise AuthFailed("name and password do not match")
        if owner.status == accounts.SUSPENDED:
            # Not counted: whoever knows the password does not guess.
            raise AuthFailed("the account is suspended")
        await self._throttle.succeeded(counted)
        return owner, key

    async def _failed(self, counted: Keys, typed: str, network: str) -> None:
        place = (network, typed)
        self._wrong.put(place, (self._wrong.peek(place) or 0) + 1, self._wrong.age)
        await self._throttle.failed(counted)

    async def _find(self, name: str) -> Found:
        async with self._store.query("auth.find") as conn:
            return await credentials.find(conn, name)

    async def _rehash(self, account_id: AccountId, key: Key, rehashed: str) -> None:
        async with self._store.query("auth.rehash") as conn:
            await credentials.rehash(conn, account_id, key.credential_id, key.secret.argon2, rehashed)

    # ---- memory ------------------------------------------------------------------------------------------------

    def _guessed(self, network: str, typed: str) -> bool:
        return (self._wrong.peek((network, typed)) or 0) >= self._limits.failures_per_account

    def _changed(self, hint: DirectoryChanged) -> None:
        if hint.account_id:
            self._verified.forget(lambda _, kept: kept.login.account_id == hint.account_id)
            self._scram.forget(lambda _, kept: kept.owner.account_id == hint.account_id)
        elif hint.domain:
            # The name may be an alias of that domain for an account of another.
            end = f"@{hint.domain}"
            self._verified.forget(lambda _, kept: kept.name.endswith(end) or kept.login.address.endswith(end))
            self._scram.forget(lambda _, kept: kept.name.endswith(end) or kept.owner.address.endswith(end))
        else:
            self._verified.forget()
            self._scram.forget()


def _canonical(username: str) -> str:
    try:
        return parse(scram.prepare(username)).key
    except BadAddress:
        # Nobody's, yet looked up and counted like any other. NUL is what Postgres cannot hold.
        return username.replace("\0", "\ufffd").lower()[:_NAME_OCTETS]


def _proved(owner: Owner, auth_message: bytes, proof: bytes) -> Key | None:
    return next((key for key in owner.keys if scram.proves(key.secret.scram_stored_key, auth_message, proof)), None)


def _login(owner: Owner, key: Key) -> Login:
    return Login(owner.account_id, owner.address, owner.display_name, key.scopes)


def _allowed(login: Login, client: Client) -> Login:
    if login.scopes and client.protocol not in login.scopes:
        raise AuthFailed("the app password is not for this protocol")
    return login
