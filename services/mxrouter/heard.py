"""What a remote server says, out of octets. Pure.

Lenient where no one is harmed (a line ended by LF, a code without text, codes that differ within a reply: the last
one counts) and bounded everywhere: whoever says more than a server can mean is not listened to any longer.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

# RFC 5321 4.5.3.1.5 has 512 octets; servers in the field say more.
LINE_OCTETS: Final = 4096
REPLY_OCTETS: Final = 64 * 1024
_TEXT: Final = 1000  # characters of a reply that are worth keeping

_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
_ENHANCED = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?:\s+|\Z)")


class NotSmtp(Exception):
    """The peer does not speak SMTP, or without end; the text says what it did."""


class Reply(NamedTuple):
    """One reply. `enhanced` is empty where the server gave none, or one that contradicts its code (RFC 2034 4)."""

    code: int
    enhanced: str
    lines: tuple[str, ...]

    @property
    def positive(self) -> bool:
        """2xx: done."""
        return self.code < 300

    @property
    def permanent(self) -> bool:
        """5xx: the same will be refused again."""
        return self.code >= 500

    @property
    def text(self) -> str:
        """What it says, on one line that can be quoted anywhere."""
        words = " ".join(line for line in self.lines if line)[:_TEXT]
        return words if words.isprintable() else "".join(c if c.isprintable() else "?" for c in words)


class Replies:
    """Octets in, replies out, the same ones whatever packets the octets come in."""

    __slots__ = ("_buffer", "_lines", "_octets")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._lines: list[tuple[bytes, bytes]] = []  # code and text of a reply that has begun
        self._octets = 0

    def feed(self, octets: bytes) -> None:
        """Add what the peer sent."""
        self._buffer += octets

    @property
    def pending(self) -> int:
        """Octets that no reply was made of yet."""
        return len(self._buffer) + self._octets

    def take(self) -> Reply | None:
        """The next reply, or None until it is whole. Raises NotSmtp, and then each time."""
        while (end := self._buffer.find(b"\n", 0, LINE_OCTETS)) >= 0:
            line = bytes(self._buffer[:end]).removesuffix(b"\r")
            found = _LINE.fullmatch(line)
            if found is None:
                raise NotSmtp(f"it said {line[:60].decode('ascii', 'replace')!r}")
            self._octets += end + 1
            if self._octets > REPLY_OCTETS:
                raise NotSmtp(f"its reply is longer than {REPLY_OCTETS} octets")
            del self._buffer[: end + 1]
            self._lines.append((found[1], found[3] or b""))
            if found[2] != b"-":
                lines, self._lines, self._octets = self._lines, [], 0
                return _reply(lines)
        if len(self._buffer) >= LINE_OCTETS:
            raise NotSmtp(f"its line is longer than {LINE_OCTETS} octets")
        return None


def _reply(said: list[tuple[bytes, bytes]]) -> Reply:
    code = int(said[-1][0])
    enhanced, lines = "", []
    for _, octets in said:
        text = octets.decode("utf-8", "replace")
        found = _ENHANCED.match(text)
        if found is not None and found[1][0] == str(code)[0]:
            enhanced = enhanced or found[1]
            text = text[found.end() :]
        lines.append(text.strip())
    return Reply(code, enhanced, tuple(lines))
