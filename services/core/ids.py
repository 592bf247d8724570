"""The names things have. Each is a plain int, str or bytes at run time and a type of its own to the checker."""

import os
import time
from typing import NewType

AccountId = NewType("AccountId", int)
Fid = NewType("Fid", int)
"""A folder, within its account."""
Mid = NewType("Mid", int)
"""A placement of an object in a folder, within its account; never reused."""
ObjectId = NewType("ObjectId", int)
"""Immutable content, within its account."""
Uid = NewType("Uid", int)
"""An item's IMAP number, within its folder."""
Cn = NewType("Cn", int)
"""A change number, within its account; below 2**48."""
SpoolId = NewType("SpoolId", str)
"""One accepted message on its way: 26 characters that sort by time."""
BlobId = NewType("BlobId", bytes)
"""SHA-256 of the octets."""

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = tuple(high + low for high in _CROCKFORD for low in _CROCKFORD)


def new_spool_id(now_ms: int | None = None) -> SpoolId:
    """A spool id that sorts after those of earlier milliseconds: 48 bits of time, 80 of chance, Crockford base 32."""
    milliseconds = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    number = (milliseconds & 0xFFFF_FFFF_FFFF) << 80 | int.from_bytes(os.urandom(10), "big")
    # 13 pairs of 5-bit digits hold 130 bits: the leading digit is 0 to 7.
    return SpoolId("".join([_PAIRS[number >> shift & 0x3FF] for shift in range(120, -1, -10)]))
