"""The maildrop as one session sees it: numbered at login, marked by DELE. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import NamedTuple

from services.core.ids import Fid, Uid


class Inbox(NamedTuple):
    """The folder behind a maildrop; of each message in uid order the uid and the octets."""

    fid: Fid
    uidvalidity: int
    uids: array[int]
    sizes: array[int]


class Body(NamedTuple):
    """One message, whole."""

    uid: Uid
    header_length: int
    octets: bytes


class NoSuchMessage(Exception):
    """No message has this number, or it is marked as deleted."""


class Maildrop:
    """Numbers to messages. Numbers start at 1 and stay what they are for the session (RFC 1939 4)."""

    __slots__ = ("_inbox", "_left", "_marked", "_octets")

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._marked: set[int] = set()
        self._left, self._octets = len(inbox.uids), sum(inbox.sizes)

    @property
    def inbox(self) -> Inbox:
        """The folder behind it."""
        return self._inbox

    def uid(self, number: int) -> Uid:
        """That message; raises `NoSuchMessage`."""
        if not 1 <= number <= len(self._inbox.uids) or number in self._marked:
            raise NoSuchMessage(number)
        return Uid(self._inbox.uids[number - 1])

    def size(self, number: int) -> int:
        """Its octets, as RETR sends them before dots are stuffed; raises `NoSuchMessage`."""
        self.uid(number)
        return self._inbox.sizes[number - 1]

    def name(self, number: int) -> str:
        """What the message is called for good (RFC 1939 7, UIDL); raises `NoSuchMessage`."""
        return f"{self._inbox.uidvalidity}.{self.uid(number)}"

    def numbers(self) -> Iterator[int]:
        """The messages that are not marked."""
        return (number for number in range(1, len(self._inbox.uids) + 1) if number not in self._marked)

    def totals(self) -> tuple[int, int]:
        """How many messages are not marked, and their octets."""
        return self._left, self._octets

    def mark(self, number: int) -> None:
        """Mark as deleted; raises `NoSuchMessage`."""
        octets = self.size(number)
        self._marked.add(number)
        self._left, self._octets = self._left - 1, self._octets - octets

    def reset(self) -> None:
        """Unmark everything."""
        self._marked.clear()
        self._left, self._octets = len(self._inbox.uids), sum(self._inbox.sizes)

    def marked(self) -> list[Uid]:
        """What the update is to expunge."""
        return [Uid(self._inbox.uids[number - 1]) for number in sorted(self._marked)]

    def run(self, number: int, count: int, octets: int) -> list[int]:
        """`number` and what follows it, marked ones left out: at most `count` messages, together within `octets`."""
        found: list[int] = []
        sizes = self._inbox.sizes
        while number <= len(sizes) and len(found) < count and sizes[number - 1] <= octets:
            if number not in self._marked:
                octets -= sizes[number - 1]
                found.append(number)
            number += 1
        return found
