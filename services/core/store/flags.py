"""What the small integers in `items` mean, and their IMAP names (RFC 3501 2.3.2)."""

from __future__ import annotations

from enum import IntEnum, IntFlag


class Kind(IntEnum):
    """What an item is."""

    MAIL = 1
    EVENT = 2
    CONTACT = 3
    TASK = 4
    NOTE = 5
    FAI = 6
    FOLDER = 7  # in tombstones only


class Flag(IntFlag):
    """System flags kept as bits. \\Seen is a column of its own: it moves other numbers than these do."""

    ANSWERED = 1
    FLAGGED = 2
    DELETED = 4
    DRAFT = 8


SYSTEM_FLAGS = {
    Flag.ANSWERED: "\\Answered",
    Flag.FLAGGED: "\\Flagged",
    Flag.DELETED: "\\Deleted",
    Flag.DRAFT: "\\Draft",
}
