"""DKIM signatures (RFC 6376, 8301, 8463). Pure: octets and keys in, header lines out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from services.core.dkim.keys import RSA, SigningKey
from services.core.mime.headers import header_end
from services.mxrouter.signature import SIGNED, algorithm, body_hash, chosen, fields_of, signed


def sign(octets: bytes, keys: Sequence[SigningKey], now: datetime) -> bytes:
    """Header lines to stand in front of the message, one signature by each key; raises nothing, whatever the octets.

    The one by RSA stands first, where verifiers that know no other look for it. There is never an l=: what may be
    added to a message is not signed (RFC 6376 8.2).
    """
    if not keys:
        return b""
    end = header_end(octets, 0, len(octets))
    names, covered = chosen(fields_of(octets, end, SIGNED))
    digest = body_hash(octets, end)
    return b"".join(
        signed(
            "DKIM-Signature",
            (
                ("v", "1"),
                ("a", algorithm(key)),
                ("c", "relaxed/relaxed"),
                ("d", key.domain),
                ("s", key.selector),
                ("t", str(int(now.timestamp()))),
                ("h", ":".join(names)),
                ("bh", digest),
            ),
            covered,
            key,
        )
        for key in sorted(keys, key=lambda key: key.algorithm != RSA)
    )
