"""POP3 lines and bodies. Pure."""

from __future__ import annotations

from typing import NamedTuple

# RFC 2449 4 limits commands to 255 octets; SASL responses (RFC 5034 4) may be much longer.
LINE_LIMIT = 12_288


class TooLong(Exception):
    """The peer sent a line longer than the limit."""


class Line(NamedTuple):
    """One command line: the keyword in capitals, and what follows it."""

    keyword: str
    argument: str


class Framer:
    """Octets in, lines out, whatever way they were split."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, octets: bytes) -> list[bytes]:
        """The lines completed by these octets, without their ends; raises `TooLong`."""
        *lines, self._rest = (self._rest + octets).split(b"\n")
        if len(self._rest) > LINE_LIMIT or any(len(line) > LINE_LIMIT for line in lines):
            raise TooLong
        return [line.removesuffix(b"\r") for line in lines]

    @property
    def rest(self) -> bytes:
        """An unfinished line."""
        return self._rest


def parse(line: bytes) -> Line:
    """A command line as its two parts; octets outside UTF-8 become U+FFFD and match nothing."""
    keyword, _, argument = line.decode("utf-8", "replace").partition(" ")
    return Line(keyword.upper(), argument)


def ok(text: str = "") -> bytes:
    """A positive reply."""
    return f"+OK {text}\r\n".encode() if text else b"+OK\r\n"


def err(text: str, code: str = "") -> bytes:
    """A negative reply, with a response code (RFC 2449 8) where there is one."""
    return f"-ERR [{code}] {text}\r\n".encode() if code else f"-ERR {text}\r\n".encode()


def multiline(first: bytes, octets: bytes) -> bytes:
    """A reply with a body: dots stuffed, ended by a line with a dot (RFC 1939 3).

    A dot behind a bare LF is stuffed too: many clients take LF for the end of a line, and a message must not be able to
    end its own transfer there.
    """
    if octets.startswith(b"."):
        octets = b"." + octets
    octets = octets.replace(b"\n.", b"\n..")
    return b"".join((first, octets, b".\r\n" if octets.endswith(b"\r\n") or not octets else b"\r\n.\r\n"))


def top(octets: bytes, header_length: int, lines: int) -> bytes:
    """The header, the blank line and the first `lines` lines of the body (RFC 1939 7, TOP)."""
    end = header_length
    if lines > octets.count(b"\n", end):
        return octets
    for _ in range(lines):
        end = octets.find(b"\n", end) + 1
    return octets[:end]
