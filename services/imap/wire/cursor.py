"""The grammar of a request: each method reads one thing at the cursor and moves past it, or raises `BadSyntax`.

Text and literals alternate; a cursor stands in one piece of text, and a literal can only be read at that piece's end.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from typing import TypeVar

from services.imap.wire import utf7
from services.imap.wire.framer import Literal, Request
from services.imap.wire.sequence import HIGHEST, STAR, SequenceSet

T = TypeVar("T")

# RFC 9051 9, from %x21-7E: an atom has none of ( ) { % * " \ ]; an astring may have "]", a list-mailbox "]", "%", "*".
_ATOM = re.compile(rb"[!#$&'+,\-./0-9:;<=>?@A-Z\[^_`a-z|}~]+")
_ASTRING = re.compile(rb"[!#$&'+,\-./0-9:;<=>?@A-Z\[\]^_`a-z|}~]+")
_PATTERN = re.compile(rb"[!#$%&'*+,\-./0-9:;<=>?@A-Z\[\]^_`a-z|}~]+")
_QUOTED = re.compile(rb'"((?:[^\0\r\n"\\]|\\["\\])*)"')
_ESCAPED = re.compile(rb'\\(["\\])')
_NUMBER = re.compile(rb"[0-9]{1,19}")
_SET = re.compile(rb"[0-9*][0-9*:,]*")
_SET_STARTS = frozenset(bytes((octet,)) for octet in b"0123456789*$")
_FLAG = re.compile(rb"\\?[!#$&'+,\-./0-9:;<=>?@A-Z\[^_`a-z|}~]+")
_FETCH_NAME = re.compile(rb"[A-Za-z][A-Za-z0-9.\-]*")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]+={0,2}|=")
_DATE = re.compile(rb'("?)([0-9]{1,2})-([A-Za-z]{3})-([0-9]{4})\1')
_DATE_TIME = re.compile(
    rb'"([ 0-9][0-9])-([A-Za-z]{3})-([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) ([+-])([0-9]{2})([0-9]{2})"'
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_MONTHS = {
    name: number for number, name in enumerate((b"JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC").split(), start=1)
}
MOST = (1 << 63) - 1  # RFC 7162 7: mod-sequence-value, RFC 9051 9: number64


class BadSyntax(Exception):
    """The request breaks the grammar at `position`, counted in octets of its piece of text."""

    def __init__(self, text: str, position: int) -> None:
        super().__init__(f"{text} (at octet {position})")
        self.text, self.position = text, position


class Cursor:
    """A place in a request, at first right behind the command's name."""

    __slots__ = ("_at", "_literals", "_piece", "_pieces", "_text", "utf8")

    def __init__(self, request: Request, *, utf8: bool = False) -> None:
        """`utf8`: mailbox names are UTF-8, not modified UTF-7 (RFC 6855 3, RFC 9051 5.1)."""
        self._pieces, self._literals = request.pieces, request.literals
        self._piece = 0
        self._text = request.pieces[0]
        self._at = 0
        self.utf8 = utf8

    # ---- marks -------------------------------------------------------------------------------------------------

    def error(self, text: str) -> BadSyntax:
        """An error at this place, to be raised."""
        return BadSyntax(text, self._at)

    def at_end(self) -> bool:
        """Whether the request has been read to its end."""
        return self._at == len(self._text) and self._piece == len(self._literals)

    def end(self) -> None:
        """Nothing more. Also the whole grammar of a command without arguments."""
        if not self.at_end():
            raise self.error("The command should end here")

    def peek(self, text: bytes) -> bool:
        """Whether this text comes next; in capitals or not is the same."""
        return self._text[self._at : self._at + len(text)].upper() == text.upper()

    def peek_set(self) -> bool:
        """Whether a sequence set comes next rather than a word."""
        return self._text[self._at : self._at + 1] in _SET_STARTS

    def accept(self, text: bytes) -> bool:
        """Move past this text if it comes next."""
        if self.peek(text):
            self._at += len(text)
            return True
        return False

    accept_word = accept

    def expect(self, text: bytes) -> None:
        """Move past this text."""
        if not self.accept(text):
            raise self.error(f"Expected {text.decode('ascii', 'replace')!r}")

    def space(self) -> None:
        """One space."""
        if self._text[self._at : self._at + 1] != b" ":
            raise self.error("Expected a space")
        self._at += 1

    def keyword(self, word: str) -> None:
        """This atom, in capitals or not."""
        if self.atom().upper() != word:
            raise self.error(f"Expected {word}")

    def parenthesised(self, item: Callable[[], T], *, empty: bool = False) -> tuple[T, ...]:
        """Items between parentheses, one space apart; `()` only where `empty` is allowed."""
        self.expect(b"(")
        if empty and self.accept(b")"):
            return ()
        items = [item()]
        while not self.accept(b")"):
            self.space()
            items.append(item())
        return tuple(items)

    # ---- words and strings -------------------------------------------------------------------------------------

    def atom(self) -> str:
        """An atom, as written."""
        return self._match(_ATOM, "an atom").decode("ascii")

    def fetch_name(self) -> str:
        """The name of a FETCH item, in capitals: up to "[", "<", a space or a parenthesis."""
        return self._match(_FETCH_NAME, "the name of an item").decode("ascii").upper()

    def section(self) -> bytes:
        """What stands between here and the closing "]" of BODY[...], names sent as literals among it."""
        found = []
        while True:
            close = self._text.find(b"]", self._at)
            if close >= 0:
                found.append(self._text[self._at : close])
                self._at = close
                return b"".join(found)
            found.append(self._text[self._at :])
            self._at = len(self._text)
            if (literal := self.literal()) is None:
                raise self.error("Expected ']'")
            if not _ASTRING.fullmatch(literal.octets):
                raise self.error("Expected the name of a header field")
            found.append(literal.octets)

    def literal(self) -> Literal | None:
        """The literal that stands here, None where there is none."""
        if self._at < len(self._text) or self._piece == len(self._literals):
            return None
        literal = self._literals[self._piece]
        self._piece += 1
        self._text, self._at = self._pieces[self._piece], 0
        return literal

    def string(self) -> bytes:
        """A quoted string or a literal. Quoted text may be UTF-8 (RFC 9051 9: QUOTED-CHAR)."""
        literal = self.literal()
        if literal is not None:
            # RFC 9051 9: CHAR8 has no NUL; only literal8 may, and only where the command takes one.
            if b"\0" in literal.octets:
                raise self.error("NUL is not allowed in a string")
            return literal.octets
        match = _QUOTED.match(self._text, self._at)
        if match is None:
            raise self.error("Expected a string")
        octets = match[1]
        if not octets.isascii():
            try:
                octets.decode("utf-8")
            except UnicodeDecodeError as error:
                raise self.error("A quoted string is UTF-8") from error
        self._at = match.end()
        return _ESCAPED.sub(rb"\1", octets) if b"\\" in octets else octets

    def astring(self) -> bytes:
        """An atom or a string."""
        return self._atom_or_string(_ASTRING)

    def nstring(self) -> bytes | None:
        """A string, or NIL, which is None."""
        if self.accept(b"NIL"):
            return None
        return self.string()

    def base64(self) -> bytes:
        """Base64 as written, not decoded; "=" alone stands for nothing (RFC 4959 3)."""
        return self._match(_BASE64, "base64")

    # ---- numbers and sets --------------------------------------------------------------------------------------

    def number(self) -> int:
        """A number below 2^63: sizes, modseqs, offsets."""
        value = int(self._match(_NUMBER, "a number"))
        if value > MOST:
            raise self.error("The number is too large")
        return value

    number64 = number

    def number32(self, *, least: int = 0) -> int:
        """A number below 2^32, `least` or more."""
        value = self.number()
        if not least <= value <= HIGHEST:
            raise self.error("The number is out of range")
        return value

    def sequence_set(self) -> SequenceSet:
        """A set of sequence numbers or UIDs, or "$" (RFC 5182 2.1)."""
        if self.accept(b"$"):
            return SequenceSet((), saved=True)
        return SequenceSet(tuple(self._range(part) for part in self._match(_SET, "a sequence set").split(b",")))

    def _range(self, part: bytes) -> tuple[int, int]:
        first, colon, last = part.partition(b":")
        low = self._set_number(first)
        return (low, self._set_number(last)) if colon else (low, low)

    def _set_number(self, digits: bytes) -> int:
        if digits == b"*":
            return STAR
        # More digits than ten are too large, however many zeros lead.
        number = int(digits) if digits.isdigit() and len(digits) <= 10 else 0
        # RFC 9051 9: seq-number is an nz-number; clamping 0 would name a message nobody meant.
        if not 0 < number <= HIGHEST:
            raise self.error("Not a sequence set")
        return number

    # ---- dates -------------------------------------------------------------------------------------------------

    def date(self) -> date:
        """A day, quoted or not: 1-Feb-1994."""
        match = _DATE.match(self._text, self._at)
        if match is None:
            raise self.error("Expected a date")
        try:
            day = date(int(match[4]), _MONTHS.get(match[3].upper(), 0), int(match[2]))
        except ValueError as error:
            raise self.error("There is no such date") from error
        self._at = match.end()
        return day

    def date_time(self) -> datetime:
        """A moment with its zone: " 1-Feb-1994 21:52:25 -0800" in quotes."""
        match = _DATE_TIME.match(self._text, self._at)
        if match is None:
            raise self.error("Expected a date and time")
        day, month, year, hour, minute, second, sign, hours, minutes = match.groups()
        zone = timedelta(hours=int(hours), minutes=int(minutes))
        try:
            moment = datetime(
                int(year),
                _MONTHS.get(month.upper(), 0),
                int(day),
                int(hour),
                int(minute),
                min(int(second), 59) if second == b"60" else int(second),  # a leap second is told as the one before
                tzinfo=timezone(-zone if sign == b"-" else zone),
            )
        except ValueError as error:
            raise self.error("There is no such moment") from error
        self._at = match.end()
        return moment

    # ---- mail --------------------------------------------------------------------------------------------------

    def flag(self) -> str:
        """One flag, system or keyword, as written."""
        return self._match(_FLAG, "a flag").decode("ascii")

    def flags(self) -> tuple[str, ...]:
        """Flags in parentheses, perhaps none; or, as STORE allows, bare ones (RFC 9051 9: store-att-flags)."""
        if self.peek(b"("):
            return self.parenthesised(self.flag, empty=True)
        flags = [self.flag()]
        while self.accept(b" "):
            flags.append(self.flag())
        return tuple(flags)

    def mailbox(self) -> str:
        """The name of a mailbox; INBOX in capitals however it was written (RFC 9051 5.1)."""
        return self._name(self.astring())

    def list_mailbox(self) -> str:
        """A name that may hold the wildcards "*" and "%"."""
        return self._name(self._atom_or_string(_PATTERN))

    def _name(self, octets: bytes) -> str:
        if octets.upper() == b"INBOX":
            return "INBOX"
        try:
            # RFC 6855 3: with UTF8=ACCEPT "&" is a character like any other.
            name = octets.decode("utf-8") if self.utf8 else utf7.decode(octets)
        except ValueError as error:
            raise self.error("Not the name of a mailbox") from error
        if _CONTROL.search(name):
            raise self.error("The name of a mailbox has no control characters")
        return name

    # ---- below -------------------------------------------------------------------------------------------------

    def _match(self, pattern: re.Pattern[bytes], what: str) -> bytes:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise self.error(f"Expected {what}")
        self._at = match.end()
        return match[0]

    def _atom_or_string(self, pattern: re.Pattern[bytes]) -> bytes:
        match = pattern.match(self._text, self._at)
        if match is None:
            return self.string()
        self._at = match.end()
        return match[0]
