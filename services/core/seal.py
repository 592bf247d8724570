"""What the store is to keep and nobody who reads the store is to know: passwords that we need as they are.

Sealed under `seal.secret`. To change it: set the new one, and the one before as `seal.former`, for every process; then
`posta route seal`; then take the former away. What was kept in the clear, before there was a seal, opens as it is.
"""

from __future__ import annotations

import base64
from typing import Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr

_MARK: Final = "sealed:1:"
_PURPOSE: Final = b"posta seal 1"


class NoSeal(Exception):
    """There is no secret to seal with; the text says what to do."""


class Unopened(Exception):
    """Sealed, and not by a secret of ours; the text names no secret."""


class Seal:
    """The seal of one process. `secret` closes and opens, `former` opens what has not been sealed anew."""

    def __init__(self, secret: SecretStr | None, former: SecretStr | None = None) -> None:
        self._newest = _key(secret) if secret else None
        keys = [key for key in (self._newest, _key(former) if former else None) if key]
        self._keys = MultiFernet(keys) if keys else None

    def close(self, text: str) -> str:
        """The text as the store is to keep it. Raises `NoSeal`."""
        if self._newest is None:
            raise NoSeal("seal.secret is not set: without it a password would lie in the store for all to read")
        return _MARK + self._newest.encrypt(text.encode()).decode("ascii")

    def open(self, kept: str) -> str:
        """The text that was sealed. Raises `Unopened`."""
        if not kept.startswith(_MARK):
            return kept
        if self._keys is None:
            raise Unopened("it is sealed and seal.secret is not set")
        try:
            return self._keys.decrypt(kept.removeprefix(_MARK)).decode()
        except InvalidToken:
            raise Unopened("neither seal.secret nor seal.former opens it") from None

    def holds(self, kept: str) -> bool:
        """Whether it is sealed by the newest secret."""
        if self._newest is None or not kept.startswith(_MARK):
            return False
        try:
            self._newest.decrypt(kept.removeprefix(_MARK))
        except InvalidToken:
            return False
        return True


def _key(secret: SecretStr) -> Fernet:
    # Not a password that a person made up: no stretching is called for, only 32 octets out of any length.
    octets = HKDF(SHA256(), 32, None, _PURPOSE).derive(secret.get_secret_value().encode())
    return Fernet(base64.urlsafe_b64encode(octets))
