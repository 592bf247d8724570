"""Passwords to hashes and back to yes or no. Slow on purpose: on a loop, go through `Workers`."""

from __future__ import annotations

import asyncio
import hmac
import os
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from services.core.auth import scram
from services.core.store.credentials import PASSWORD, Key, Secret

LONGEST = 1024  # octets; a guard against being made to hash megabytes

# 19 MiB, two passes, one lane: about 25 ms of one core, and memory for as many at once as there are workers.
_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)

T = TypeVar("T")


class BadPassword(ValueError):
    """Cannot be anyone's password; the text says why."""


def derive(password: str, salt: tuple[bytes, int] | None = None) -> Secret:
    """The forms a new password is kept in; `salt`: the account's, if it has credentials (`credentials.salt`).

    Raises `BadPassword` when it is empty or endless. Takes some 30 ms.
    """
    prepared = scram.prepare(password)
    octets = prepared.encode("utf-8", "surrogatepass")
    if not octets:
        raise BadPassword("a password may not be empty")
    if len(octets) > LONGEST or "\0" in prepared:
        raise BadPassword(f"a password may have at most {LONGEST} octets and no NUL")
    salt_octets, iterations = salt or (os.urandom(scram.SALT_OCTETS), scram.ITERATIONS)
    return Secret(_hasher.hash(octets), salt_octets, iterations, *scram.keys(password, salt_octets, iterations))


def new_app_password() -> str:
    """A password for a program: 80 bits that a person can copy by hand."""
    letters = "".join(secrets.choice("abcdefghijkmnpqrstuvwxyz23456789") for _ in range(16))
    return "-".join(letters[at : at + 4] for at in range(0, 16, 4))


def matching(keys: tuple[Key, ...], password: str) -> tuple[Key | None, str | None]:
    """The credential whose password this is, and its argon2 hash under today's parameters if that has another form.

    Always costs one argon2, whatever there is to compare with: its time tells nobody whether a name exists. App
    passwords, which are long and random, are told by their SCRAM keys, so their number hardly shows either.
    """
    octets = scram.prepare(password).encode("utf-8", "surrogatepass")
    if len(octets) > LONGEST:
        octets, keys = octets[:LONGEST], ()
    own = next((key for key in keys if key.kind == PASSWORD), None)
    hashed = own.secret.argon2 if own is not None else _decoy()
    if verify(hashed, octets) and own is not None:
        return own, _hasher.hash(octets) if _hasher.check_needs_rehash(hashed) else None
    derived: dict[tuple[bytes, int], bytes] = {}
    for key in keys:
        if key.kind == PASSWORD:
            continue
        salt = (key.secret.scram_salt, key.secret.scram_iterations)
        if salt not in derived:
            derived[salt] = scram.keys(password, *salt).stored_key
        if hmac.compare_digest(derived[salt], key.secret.scram_stored_key):
            return key, None
    return None, None


def verify(hashed: str, octets: bytes) -> bool:
    """Whether the argon2 hash is of these octets; a hash that cannot be read is of none."""
    try:
        return _hasher.verify(hashed, octets)
    except (VerificationError, InvalidHashError):
        return False


@cache
def _decoy() -> str:
    return _hasher.hash(secrets.token_bytes(16))


class Workers:
    """Threads that hash: at most `count` at once, so a rush of logins takes neither all memory nor all cores."""

    def __init__(self, count: int | None = None) -> None:
        self._threads = ThreadPoolExecutor(count or max(1, min(4, os.cpu_count() or 1)), "argon2")
        _decoy()  # made now: the first unknown name must not take longer than later ones

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`, in its turn; a cancelled caller's turn is given up if it has not begun."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        """Let those at work finish, and take no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
