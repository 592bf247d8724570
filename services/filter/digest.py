"""What a recipient is told of mail that is held for him. Pure: the clock and the links are arguments.

What strangers wrote stands in it as one line of text each, and no address in it becomes a link by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime

from services.core.store.quarantine_upkeep import Untold

MOST = 100
"""Messages that one digest lists; of more it tells the number."""

_SUBJECT_LENGTH = 120
_WHY = {"virus": "a virus", "spam": "spam", "policy": "a rule"}


@dataclass(frozen=True, slots=True)
class Digest:
    """Everything one digest is made of. `items` are all of one account, at least one."""

    hostname: str
    now: datetime
    message_id: str  # without angle brackets
    items: Sequence[Untold]
    link: Callable[[Untold], str]


def compose(digest: Digest) -> bytes:
    """The digest as a whole message with CRLF line ends, to be sent with a null reverse-path."""
    count = len(digest.items)
    lines = [
        f"From: Mail quarantine <postmaster@{digest.hostname}>",
        f"To: <{digest.items[0].to}>",
        f"Subject: {'A message is' if count == 1 else f'{count} messages are'} held for you",
        f"Date: {format_datetime(digest.now)}",
        f"Message-ID: <{digest.message_id}>",
        "Auto-Submitted: auto-generated",  # RFC 3834 5: nobody's vacation answers this
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
        "",
        "This mail for you was not delivered: it looks as if you would not want it.",
        "If you do want a message, open its link and confirm there. Whatever you leave",
        "alone is deleted on the day that stands beside it; you need not do anything.",
        "",
    ]
    for item in digest.items[:MOST]:
        lines += _about(item, digest.link)
    if count > MOST:
        lines += [f"... and {count - MOST} more, which your postmaster can show you.", ""]
    lines += [f"This digest was made by {digest.hostname}.", ""]
    return "\r\n".join(lines).encode()


def _about(item: Untold, link: Callable[[Untold], str]) -> list[str]:
    release = (
        [f"  ask your postmaster, naming {item.spool_id}: it may do harm"]
        if item.kind == "virus"
        else [f"  {link(item)}", f"  (or ask your postmaster, naming {item.spool_id})"]
    )
    return [
        f"From:    {shown(item.from_text) or '(nobody)'}",
        f"Subject: {shown(item.subject) or '(none)'}",
        f"Held as: {_WHY.get(item.kind, item.kind)} - {shown(item.reason)} (score {item.score:.1f})",
        f"Arrived: {item.received_at:%d %b %Y %H:%M} UTC, kept until {item.expires_at:%d %b %Y}",
        "To have it delivered:",
        *release,
        "",
    ]


def shown(text: str) -> str:
    """A stranger's words on one line, short, and without anything that a mail program would make a link of."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if len(line) > _SUBJECT_LENGTH:
        line = line[: _SUBJECT_LENGTH - 3] + "..."
    return line.replace("://", ": //").replace("www.", "www .")
