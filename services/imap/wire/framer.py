"""Bytes in, requests out: lines and literals, no grammar.

A request is a tag, a command name and its text, cut where the client put a literal. The framer stops at every literal
(`NeedLiteral`) until it is told `accept` or `refuse`: a message over size or quota is refused before it is sent.
What is refused or too long is thrown away as it arrives. Lines that are no commands (SASL, DONE) are asked for with
`next_line`: there is one buffer and one reader for all of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

LINE_OCTETS = 65536
REQUEST_OCTETS = 64 * 1024 * 1024
# No announcement of a literal is longer: `~{`, eighteen digits, `+}`, CR.
TAIL_OCTETS = 32

# RFC 9051 9: tag is ASTRING-CHAR except "+", a command is an atom.
_TAG = re.compile(rb"[!#$&',\-./0-9:;<=>?@A-Z\[\]^_`a-z|}~]+\Z")
_NAME = re.compile(rb"[!#$&'+,\-./0-9:;<=>?@A-Z\[^_`a-z|}~]+\Z")
# RFC 9051 9: literal; RFC 7888 8: the plus; RFC 3516 4.4: the tilde of literal8.
_MARKER = re.compile(rb"(~?)\{([0-9]{1,18})(\+?)\}\Z")


class Literal(NamedTuple):
    """Octets sent by count; a `binary` one may hold NUL (literal8)."""

    octets: bytes
    binary: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One command. `pieces[0]` starts right behind the name; between `pieces[i]` and `pieces[i + 1]` is `literals[i]`.

    `name` is in capitals; the UID commands have both words, "UID FETCH".
    """

    tag: str
    name: str
    pieces: tuple[bytes, ...]
    literals: tuple[Literal, ...] = ()


@dataclass(frozen=True, slots=True)
class NeedLiteral:
    """The client announced `size` octets. With `sync` it waits for `+` or for a refusal (RFC 9051 4.3)."""

    request: Request
    size: int
    sync: bool
    binary: bool


@dataclass(frozen=True, slots=True)
class TooLong:
    """A limit of the framer was passed and the request is dropped. `tag` None: it could not be read."""

    tag: str | None
    limit: int


@dataclass(frozen=True, slots=True)
class BadFrame:
    """A line that is no command."""

    tag: str | None
    text: str


Frame: TypeAlias = Request | NeedLiteral | TooLong | BadFrame


class Framer:
    """Requests out of a stream of octets, the same ones whatever packets the octets come in."""

    __slots__ = (
        "_binary",
        "_buffer",
        "_chunks",
        "_head",
        "_literals",
        "_missing",
        "_octets",
        "_offer",
        "_pieces",
        "_scanned",
        "_skip",
        "_swallow",
        "_tail",
        "_text",
        "line_octets",
        "request_octets",
    )

    def __init__(self, line_octets: int = LINE_OCTETS, request_octets: int = REQUEST_OCTETS) -> None:
        """`line_octets` limits the text of one request, `request_octets` its literals together; both may be changed."""
        self.line_octets, self.request_octets = line_octets, request_octets
        self._buffer = bytearray()
        self._scanned = 0  # octets of the buffer that hold no line end
        self._offer: NeedLiteral | None = None
        self._chunks: list[bytes] | None = None  # of the accepted literal
        self._binary = False
        self._missing = 0  # octets it still needs
        self._swallow = False  # a dropped request is still arriving
        self._skip = 0  # octets of its literal still to come
        self._tail = b""  # how its line ends, so far
        self._begin()

    def _begin(self) -> None:
        self._head: tuple[str, str] | None = None
        self._pieces: tuple[bytes, ...] = ()
        self._literals: list[Literal] = []
        self._text = self._octets = 0

    @property
    def buffered(self) -> int:
        """Octets received that belong to no frame yet, literals aside."""
        return len(self._buffer)

    def feed(self, octets: bytes) -> None:
        """Take what the client sent. A large literal never passes through the line buffer."""
        if not self._buffer:
            if self._missing:
                octets = self._collect(octets)
            elif self._skip:
                dropped = min(self._skip, len(octets))
                self._skip -= dropped
                octets = octets[dropped:]
        self._buffer += octets

    def next(self) -> Frame | None:
        """The next frame; None until more is fed, or until an offered literal is decided on."""
        while self._offer is None:
            if self._swallow and not self._swallowed(literals=True):
                return None
            if self._chunks is not None and not self._collected():
                return None
            if (line := self._line(self.line_octets - self._text)) is None:
                return None
            if isinstance(line, TooLong):
                tag = self._head[0] if self._head else _tag(bytes(self._buffer[: self.line_octets]))
                return self._drop(TooLong(tag, self.line_octets))
            if (frame := self._frame(line)) is not None:
                return frame
        return None

    def next_line(self) -> bytes | TooLong | None:
        """The next line without its end, whatever it says; not to be asked for in the middle of a request."""
        if self._swallow and not self._swallowed(literals=False):
            return None
        line = self._line(self.line_octets)
        if isinstance(line, TooLong):
            self._swallow = True
        return line

    def accept(self) -> None:
        """Take the literal that was offered; a client that waits is then sent `+`."""
        offer, self._offer = self._offer, None
        assert offer is not None
        self._chunks, self._missing, self._binary = [], offer.size, offer.binary

    def refuse(self) -> None:
        """Drop the request whose literal was offered, and what the client sends of it unasked."""
        offer, self._offer = self._offer, None
        assert offer is not None
        if not offer.sync:
            self._swallow, self._skip = True, offer.size
        self._begin()

    def _line(self, limit: int) -> bytes | TooLong | None:
        """The next line without its end. A line over the limit stays in the buffer, to be swallowed."""
        at = self._buffer.find(b"\n", self._scanned)
        if at > limit or (at < 0 and len(self._buffer) > limit):
            self._scanned = 0
            return TooLong(None, limit)
        if at < 0:
            self._scanned = len(self._buffer)
            return None
        # A bare LF ends a line as well: nothing stands behind a command that could be smuggled past us.
        line = bytes(self._buffer[: at - 1 if at and self._buffer[at - 1] == 0x0D else at])
        del self._buffer[: at + 1]
        self._scanned = 0
        return line

    def _frame(self, line: bytes) -> Frame | None:
        """What a line completes: a request, the announcement of a literal, or nothing of either."""
        self._text += len(line)
        marker = _MARKER.search(line, max(0, len(line) - TAIL_OCTETS))
        text = line[: marker.start()] if marker else line
        if self._head is None:
            head = _head(text, whole=marker is None)
            if isinstance(head, BadFrame):
                return self._drop(head, marker)
            self._head, text = head
        if marker is None:
            request = Request(*self._head, (*self._pieces, text), tuple(self._literals))
            self._begin()
            return request
        return self._announced(text, marker)

    def _announced(self, text: bytes, marker: re.Match[bytes]) -> Frame:
        assert self._head is not None
        size = int(marker[2])
        if self._octets + size > self.request_octets:
            return self._drop(TooLong(self._head[0], self.request_octets), marker)
        self._pieces = (*self._pieces, text)
        self._octets += size
        request = Request(*self._head, self._pieces, tuple(self._literals))
        self._offer = NeedLiteral(request, size, not marker[3], bool(marker[1]))
        return self._offer

    def _drop(self, frame: TooLong | BadFrame, marker: re.Match[bytes] | None = None) -> Frame:
        """Forget the request and throw away what is still to come of it."""
        if marker is None:
            self._swallow = isinstance(frame, TooLong)
        elif marker[3]:
            self._swallow, self._skip = True, int(marker[2])
        self._begin()
        return frame

    def _collect(self, octets: bytes) -> bytes:
        """Add to the accepted literal; returns what lies behind it."""
        assert self._chunks is not None
        chunk = octets[: self._missing]
        self._chunks.append(chunk)
        self._missing -= len(chunk)
        return octets[len(chunk) :]

    def _collected(self) -> bool:
        if self._missing and self._buffer:
            chunk = bytes(self._buffer[: self._missing])
            del self._buffer[: len(chunk)]
            self._collect(chunk)
        if self._missing:
            return False
        assert self._chunks is not None
        self._literals.append(Literal(b"".join(self._chunks), self._binary))
        self._chunks = None
        return True

    def _swallowed(self, *, literals: bool) -> bool:
        """Throw away what has come of a dropped request; True at its end."""
        while True:
            dropped = min(self._skip, len(self._buffer))
            del self._buffer[:dropped]
            self._skip -= dropped
            if self._skip:
                return False
            at = self._buffer.find(b"\n")
            end = at if at >= 0 else len(self._buffer)
            self._tail = (self._tail + bytes(self._buffer[max(0, end - TAIL_OCTETS) : end]))[-TAIL_OCTETS:]
            del self._buffer[: end + 1]
            if at < 0:
                return False
            marker = _MARKER.search(self._tail.removesuffix(b"\r"))
            self._tail = b""
            # Who waits for `+` has been refused and will not send it (RFC 7888 4).
            if not (literals and marker and marker[3]):
                self._swallow = False
                return True
            self._skip = int(marker[2])


def _tag(line: bytes) -> str | None:
    """The tag at the start of a line, if it is one."""
    tag = line.partition(b" ")[0]
    return tag.decode("ascii") if _TAG.match(tag) else None


def _head(text: bytes, *, whole: bool) -> tuple[tuple[str, str], bytes] | BadFrame:
    """((tag, name), what stands behind them); `whole` where the line ends with this text."""
    first, _, rest = text.partition(b" ")
    tag = _tag(first)
    if tag is None:
        return BadFrame(None, "A command begins with a tag.")
    name, space, rest = rest.partition(b" ")
    word = name.upper()
    if word == b"UID" and space:
        second, space, rest = rest.partition(b" ")
        name, word = second, b"UID " + second.upper()
    if not _NAME.match(name) or not (space or whole):
        return BadFrame(tag, "A command has a name.")
    return (tag, word.decode("ascii")), space + rest
