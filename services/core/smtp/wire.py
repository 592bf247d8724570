"""Bytes to command lines, messages and chunks. Pure: no socket, no clock.

Octets go in by `feed`; what is wanted next is said by `want_line`, `want_message` or `want_chunk`, and `take` gives it
once it is whole. What follows stays in the buffer, so pipelined input is read piece by piece, each in its own manner.
How the octets were cut on their way makes no difference to what comes out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

# RFC 4954 4: the longest line that a client may have to send, with its CRLF. Verbs have tighter limits of their own.
LONGEST_LINE: Final = 12288

_END: Final = b"\r\n.\r\n"
# A dot alone between two line ends of which one at least is not CRLF: where a careless reader would end the message.
_LONE_DOT: Final = re.compile(rb"(?:(?<!\r)\n|\r)\.[\r\n]|[\r\n]\.(?:\n|\r(?!\n))")


@dataclass(frozen=True, slots=True)
class Line:
    """A command line without its CRLF."""

    octets: bytes


class Fault(Enum):
    """What was read to its end and thrown away."""

    LINE_TOO_LONG = auto()
    BARE_NEWLINE = auto()  # a line that ended with LF alone, or had a CR inside
    TOO_BIG = auto()  # a message over the limit
    DISCARDED = auto()  # a chunk that was not to be kept


class Newlines(Enum):
    """How the lines of a message end."""

    CLEAN = auto()  # with CRLF, all of them
    BARE = auto()  # some with CR or LF alone
    FALSE_END = auto()  # so beside a dot, where a careless reader would end the message (SMTP smuggling)


@dataclass(frozen=True, slots=True)
class Message:
    """What DATA brought, without its stuffed dots and its end."""

    octets: bytes
    newlines: Newlines  # as they were sent, before dots were undone


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one BDAT brought."""

    octets: bytes


Event = Line | Message | Chunk | Fault


class _Want(Enum):
    LINE = auto()
    MESSAGE = auto()
    CHUNK = auto()


class Framer:
    """One direction of one connection. An empty one holds no memory worth the name."""

    __slots__ = ("_buffer", "_chunk", "_dropping", "_keep", "_limit", "_position", "_searched", "_want")

    def __init__(self) -> None:
        self._buffer: bytes | bytearray = b""
        self._position = 0  # where the wanted thing begins
        self._searched = 0  # up to where its end was looked for in vain
        self._want = _Want.LINE
        self._dropping = False  # the thing is over its limit: look for its end, keep nothing
        self._limit = 0
        self._chunk = 0  # octets of the chunk still to come
        self._keep = True

    def feed(self, octets: bytes) -> None:
        """Add what the peer sent."""
        if self._position == len(self._buffer):
            self._searched -= self._position
            self._buffer, self._position = octets, 0
        elif isinstance(self._buffer, bytearray):
            self._buffer += octets
        else:
            self._searched -= self._position
            rest = bytearray(memoryview(self._buffer)[self._position :])
            rest += octets
            self._buffer, self._position = rest, 0

    def __len__(self) -> int:
        """Octets that were fed and not yet taken."""
        return len(self._buffer) - self._position

    def discard(self) -> None:
        """Forget everything that was fed (RFC 3207 4.2)."""
        self._buffer, self._position, self._searched = b"", 0, 0

    def want_line(self) -> None:
        """Read a command line next."""
        self._begin(_Want.LINE)

    def want_message(self, limit: int) -> None:
        """Read up to CRLF . CRLF next; a message of more than `limit` octets comes out as TOO_BIG."""
        self._begin(_Want.MESSAGE)
        self._limit = limit

    def want_chunk(self, size: int, keep: bool) -> None:
        """Read `size` octets next (RFC 3030 2); without `keep` they come out as DISCARDED."""
        self._begin(_Want.CHUNK)
        self._chunk, self._keep = size, keep

    def take(self) -> Event | None:
        """What was wanted, or None until it is whole. After an event a line is wanted, unless told otherwise."""
        if self._want is _Want.LINE:
            return self._take_line()
        event = self._take_message() if self._want is _Want.MESSAGE else self._take_chunk()
        if event is not None:
            self._begin(_Want.LINE)
        return event

    def _begin(self, want: _Want) -> None:
        self._want = want
        self._dropping = False
        self._searched = self._position

    def _advance(self, position: int) -> None:
        if position == len(self._buffer):
            self._buffer, position = b"", 0
        elif isinstance(self._buffer, bytearray) and position > LONGEST_LINE:
            del self._buffer[:position]
            position = 0
        self._position = self._searched = position

    def _take_line(self) -> Event | None:
        begin = self._position
        at = self._buffer.find(b"\n", self._searched)
        if at < 0:
            if len(self._buffer) - begin > LONGEST_LINE:
                self._dropping = True
                self._advance(len(self._buffer))
            self._searched = len(self._buffer)
            return None
        too_long, self._dropping = self._dropping or at + 1 - begin > LONGEST_LINE, False
        line = bytes(self._buffer[begin:at])
        self._advance(at + 1)
        if too_long:
            return Fault.LINE_TOO_LONG
        # RFC 5321 2.3.8: neither CR nor LF alone ends a line; to say so is kinder than to wait for more.
        if line.find(b"\r") != len(line) - 1 or not line:
            return Fault.BARE_NEWLINE
        return Line(line[:-1])

    def _take_message(self) -> Event | None:
        begin, buffer = self._position, self._buffer
        if not self._dropping and buffer[begin : begin + 3] == b".\r\n":
            # RFC 5321 4.1.1.4: the CRLF of the DATA command is the one in front of the dot.
            self._advance(begin + 3)
            return Message(b"", Newlines.CLEAN)
        at = buffer.find(_END, max(begin, self._searched - len(_END) + 1))
        if at < 0:
            # Stuffed dots do not count (RFC 1870 4): at most one octet in four of a message is one.
            if self._dropping or len(buffer) - begin > self._limit + self._limit // 3 + len(_END):
                self._drop_all_but(len(_END) - 1)
            self._searched = len(self._buffer)
            return None
        sent = b"" if self._dropping else bytes(buffer[begin : at + 2])
        octets, too_big = _unstuffed(sent), self._dropping
        self._advance(at + len(_END))
        if too_big or len(octets) > self._limit:
            return Fault.TOO_BIG
        return Message(octets, newlines(sent))

    def _drop_all_but(self, tail: int) -> None:
        self._dropping = True
        self._buffer = bytearray(self._buffer[-tail:])
        self._position = 0

    def _take_chunk(self) -> Event | None:
        held = len(self)
        if not self._keep:
            taken = min(held, self._chunk)
            self._chunk -= taken
            self._advance(self._position + taken)
            return None if self._chunk else Fault.DISCARDED
        if held < self._chunk:
            return None
        end = self._position + self._chunk
        octets = bytes(memoryview(self._buffer)[self._position : end])
        self._advance(end)
        return Chunk(octets)


def newlines(octets: bytes) -> Newlines:
    """How the lines of `octets` end (RFC 5321 2.3.8); a message is examined as it was sent."""
    # Every CR and LF belongs to a pair: two passes at the speed of C, where counting each kind would be three.
    if len(octets) - len(octets.translate(None, b"\r\n")) == 2 * octets.count(b"\r\n"):
        return Newlines.CLEAN
    return Newlines.BARE if _LONE_DOT.search(octets) is None else Newlines.FALSE_END


def _unstuffed(octets: bytes) -> bytes:
    # RFC 5321 4.5.2: a line that begins with a dot loses it.
    if octets.startswith(b"."):
        octets = octets[1:]
    return octets.replace(b"\r\n.", b"\r\n") if b"\r\n." in octets else octets
