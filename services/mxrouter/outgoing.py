"""The last hand on a message before it leaves: signed where it is ours, forwarded so that it survives where it is not.

- Mail of a login, and our own notices: DKIM by the domain of its From, where that is ours and has keys.
- Mail from outside that an address of ours led elsewhere: the sender is rewritten, so that SPF asks about us and
  bounces come back; an ARC set says what we found when it came.
- Octets are only ever put in front of; what goes to mailboxes here does not pass this place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from services.core import address
from services.core.address import PATH_OCTETS, BadAddress
from services.core.directory import Directory
from services.core.dkim.keys import RSA, SigningKey
from services.core.ids import AccountId
from services.core.mime.headers import Mailbox, find, header_end, parse_addresses, parse_fields, unfold, value_of
from services.mxrouter.keyring import Keyring
from services.mxrouter.seal import seal
from services.mxrouter.sign import sign

OUR_DOOR = "posta"  # of spool entries that we wrote ourselves
_HEADER_LINES = 10_000
_IN_THREAD = 256 << 10  # hashing so much takes longer than the loop should wait


@dataclass(frozen=True, slots=True)
class Parcel:
    """What the spool knows of a message for some recipients, all of them forwarded by the same domain or none."""

    sender: str  # empty: the null reverse-path
    sender_account_id: AccountId | None
    door: str
    forwarded_by: str | None


class Finished(NamedTuple):
    """The sender for MAIL FROM, and the whole message."""

    sender: str
    octets: bytes


def _now() -> datetime:
    return datetime.now(UTC)


class Finisher:
    """One per process."""

    def __init__(self, keyring: Keyring, directory: Directory, host: str, clock: Callable[[], datetime] = _now) -> None:
        """`host`: our name in Authentication-Results."""
        self._keyring, self._directory, self._host, self._clock = keyring, directory, host, clock

    async def finish(self, parcel: Parcel, octets: bytes) -> Finished:
        """The message as it is to be sent, `octets` being the prefix and the blob of its entry.

        Nothing in the octets makes it fail. Raises `StoreUnavailable`, and `KeyUnusable` where a key of the domain
        cannot be read: better late than without the signature that the domain promises.
        """
        now = self._clock()
        lines = b""
        if parcel.sender_account_id is not None or parcel.door == OUR_DOOR:
            if keys := await self._signers(octets, notice=parcel.door == OUR_DOOR):
                lines = await _aside(len(octets), lambda: sign(octets, keys, now))
        elif parcel.forwarded_by:
            found = await self._keyring.keys(parcel.forwarded_by)
            if (key := next((key for key in found if key.algorithm == RSA), None)) is not None:
                lines = await _aside(len(octets), lambda: seal(octets, key, self._host, now))
        return Finished(await self._sender(parcel, now), lines + octets)

    async def _signers(self, octets: bytes, *, notice: bool) -> tuple[SigningKey, ...]:
        domain = author_domain(octets)
        if not domain:
            return ()
        keys = await self._keyring.keys(domain)
        # Our notices are from postmaster at this host, whose name mostly lies below a domain of ours. To DMARC a
        # signature by that domain is as good (RFC 7489 3.1.1); users' domains may belong to different people.
        while notice and not keys and domain.count(".") > 1:
            domain = domain.partition(".")[2]
            keys = await self._keyring.keys(domain)
        return keys

    async def _sender(self, parcel: Parcel, now: datetime) -> str:
        if not parcel.sender or not parcel.forwarded_by:
            return parcel.sender
        try:
            sender = address.parse(parcel.sender, longest_local=PATH_OCTETS)
        except BadAddress:
            return parcel.sender
        if await self._directory.owns(sender.domain):
            return parcel.sender
        rewritten = (await self._keyring.rewriter()).forward(sender, parcel.forwarded_by, now.timestamp())
        # A sender too long to be rewritten stays: SPF may fail then, and no bounce is lost.
        return str(rewritten) if rewritten else parcel.sender


def author_domain(octets: bytes) -> str:
    """The one domain of the one From field; empty where there is no such."""
    end = header_end(octets, 0, len(octets))
    fields, _ = parse_fields(octets, 0, end, _HEADER_LINES)
    field = find(fields, b"from")
    if field is None or sum(each.name == b"from" for each in fields) > 1:
        return ""
    boxes = [one for one in parse_addresses(unfold(value_of(octets, field))) if isinstance(one, Mailbox)]
    try:
        domains = {address.domain(box.domain.decode()) for box in boxes}
    except (BadAddress, UnicodeDecodeError):
        return ""
    return domains.pop() if len(domains) == 1 else ""


async def _aside(octets: int, work: Callable[[], bytes]) -> bytes:
    return await asyncio.to_thread(work) if octets > _IN_THREAD else work()
