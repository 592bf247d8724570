"""Who a message says it is from, read from its header. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from services.core.address import Address, BadAddress, parse
from services.core.mime.headers import Mailbox, find_all, header_end, parse_addresses, parse_fields, unfold, value_of

_HEADER_LINES = 10_000


@dataclass(frozen=True, slots=True)
class Letter:
    """What the door needs of a header."""

    authors: tuple[Address, ...]
    has_date: bool
    has_message_id: bool


class NotSent(Exception):
    """The header does not say who wrote the message in a way that can be checked; the text says what is wrong."""


def read(octets: bytes) -> Letter:
    """Authors and what is missing. Raises `NotSent` unless one From names addresses only (RFC 5322 3.6.2)."""
    end = header_end(octets, 0, len(octets))
    fields, _ = parse_fields(octets, 0, end, _HEADER_LINES)
    written = find_all(fields, b"from")
    if len(written) != 1:
        raise NotSent("The message must have one From field" if not written else "The message has several From fields")
    authors = []
    for one in parse_addresses(unfold(value_of(octets, written[0]))):
        if not isinstance(one, Mailbox):
            raise NotSent("The From field must not have groups")
        authors.append(_address(one))
    if not authors:
        raise NotSent("The From field has no address")
    names = {field.name for field in fields}
    return Letter(tuple(authors), b"date" in names, b"message-id" in names)


def _address(mailbox: Mailbox) -> Address:
    try:
        return parse(f"{mailbox.local.decode()}@{mailbox.domain.decode()}")
    except (BadAddress, UnicodeDecodeError) as error:
        raise NotSent("The From field has an address that is none") from error
