"""Sender addresses for forwarded mail, and back again: the sender rewriting scheme. Pure.

`SRS0=tag=day=example.org=bob@ours` stands for bob@example.org: SPF then asks about our domain, and a bounce comes back
to us. A sender that another forwarder has rewritten becomes `SRS1=tag=other.example==...@ours`, which leads back to
that forwarder, however many lie between. The tag is an HMAC: nobody else can make an address that we would forward to.
"""

from __future__ import annotations

import base64
import hmac
import re
from dataclasses import dataclass

from services.core.address import PATH_OCTETS, Address, BadAddress, parse

KEEP_DAYS = 21  # senders give up after a week; a receiver may bounce later still
_DAY_S = 86400
_CYCLE = 1024  # two characters of base 32 name a day in it
_TAG_OCTETS = 5  # eight characters; guessing one takes 2**40 RCPTs
_DIGITS = "abcdefghijklmnopqrstuvwxyz234567"
# Other forwarders may have "+" or "-" behind the name; local parts may come back with their case changed.
_LOCAL = re.compile(r"(srs[01])[=+-](.*)", re.I | re.S)


def is_rewritten(address: Address) -> bool:
    """Whether the address looks like one that a forwarder made, us or another."""
    return _LOCAL.fullmatch(address.local) is not None


@dataclass(frozen=True, slots=True)
class Rewriter:
    """Makes and reads such addresses with one secret."""

    secret: bytes

    def forward(self, sender: Address, domain: str, now_s: float) -> Address | None:
        """The sender under which `domain` passes the mail on; None where that would be longer than a path may be."""
        found = _LOCAL.fullmatch(sender.local)
        if found is not None and found[1].lower() == "srs0":
            # What follows the name keeps its own separator: the other forwarder reads it again.
            local = self._outer(sender.domain, sender.local[4:])
        elif found is not None and "=" in found[2] and "=" in found[2].partition("=")[2]:
            _, first, rest = found[2].split("=", 2)
            local = self._outer(first, rest)
        else:
            day = _stamp(now_s)
            local = f"SRS0={self._tag(day, sender.domain, sender.local)}={day}={sender.domain}={sender.local}"
        made = Address(local, domain)
        return made if len(str(made).encode()) + 2 <= PATH_OCTETS else None

    def reverse(self, address: Address, now_s: float) -> Address | None:
        """Where a bounce to `address` belongs; None where we did not make it, or too long ago."""
        found = _LOCAL.fullmatch(address.local)
        if found is None:
            return None
        parts = found[2].split("=", 3 if found[1].lower() == "srs0" else 2)
        try:
            if found[1].lower() == "srs0":
                tag, day, domain, local = parts
                good = self._is(tag, day, domain, local) and _age(day, now_s) < KEEP_DAYS
            else:
                # Its day is the other forwarder's to judge.
                tag, domain, rest = parts
                local, good = f"SRS0{rest}", self._is(tag, domain, rest)
            return parse(str(Address(local, domain)), longest_local=PATH_OCTETS) if good else None
        except (ValueError, BadAddress):
            return None

    def _outer(self, first: str, rest: str) -> str:
        return f"SRS1={self._tag(first, rest)}={first}={rest}"

    def _is(self, tag: str, *parts: str) -> bool:
        return hmac.compare_digest(tag.lower().encode(), self._tag(*parts).encode())

    def _tag(self, *parts: str) -> str:
        # Lower case, because hosts on the way back may have changed it.
        text = "=".join((str(len(parts)), *parts)).lower()
        digest = hmac.digest(self.secret, text.encode("utf-8", "surrogatepass"), "sha256")
        return base64.b32encode(digest[:_TAG_OCTETS]).decode().lower()


def _stamp(now_s: float) -> str:
    day = int(now_s // _DAY_S) % _CYCLE
    return _DIGITS[day >> 5] + _DIGITS[day & 31]


def _age(stamp: str, now_s: float) -> int:
    """Days since the stamp, within the cycle; raises ValueError for what is none.

    Or until it: who made it may have had a clock that was ahead of ours, or ours has been set back since.
    """
    high, low = (_DIGITS.index(digit) for digit in stamp.lower())
    since = (int(now_s // _DAY_S) - (high << 5 | low)) % _CYCLE
    return min(since, _CYCLE - since)
