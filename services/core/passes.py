"""The word in a digest's link that lets its recipient release one message. Pure.

Signed with a secret that is kept with the message alone: it proves that its holder was sent the digest, names one
recipient of one message, and is worth nothing once the message is gone.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import NamedTuple

from services.core.ids import SpoolId

_TOKEN = re.compile(r"([0-9a-hjkmnp-tv-z]{26})-([0-9]{1,9})-([0-9a-f]{32})")


class Claim(NamedTuple):
    """What a token says, before it is believed."""

    spool_id: SpoolId
    n: int
    seal: str


def token(secret: bytes, spool_id: str, n: int) -> str:
    """The word for the n-th recipient of a message."""
    return f"{spool_id}-{n}-{_seal(secret, spool_id, n)}"


def read(word: str) -> Claim | None:
    """What a word claims; None where it is no token."""
    found = _TOKEN.fullmatch(word)
    return Claim(SpoolId(found[1]), int(found[2]), found[3]) if found else None


def holds(claim: Claim, secret: bytes) -> bool:
    """Whether the claim was signed with the message's secret."""
    return hmac.compare_digest(claim.seal, _seal(secret, claim.spool_id, claim.n))


def _seal(secret: bytes, spool_id: str, n: int) -> str:
    return hmac.new(secret, f"release {spool_id} {n}".encode(), hashlib.sha256).hexdigest()[:32]
