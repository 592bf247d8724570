"""Flags between their two shapes: bits and keywords in the store, names on the wire (RFC 9051 2.3.2)."""

from __future__ import annotations

from collections.abc import Sequence

from services.core.store.flags import SYSTEM_FLAGS, Flag

SEEN_BIT, RECENT_BIT = 16, 32
BITS = {
    **{int(flag): name.encode() for flag, name in SYSTEM_FLAGS.items()},
    SEEN_BIT: b"\\Seen",
    RECENT_BIT: b"\\Recent",
}
# Every combination as text: a FETCH of flags is one look-up a message.
TEXTS = tuple(b" ".join([name for bit, name in BITS.items() if number & bit]) for number in range(2 * RECENT_BIT))
# Said at SELECT without looking at the messages; what else is met is announced when it is met.
KEYWORDS_KEPT = 200
COMMON_KEYWORDS = ("$Forwarded", "$MDNSent", "$Junk", "$NotJunk", "$Phishing")


def flags_text(bits: int, keywords: Sequence[str] | None, recent: bool) -> bytes:
    """The flags of one message, between the parentheses. `bits` as in `view.FlagRow`."""
    text = TEXTS[bits | RECENT_BIT if recent else bits]
    if not keywords:
        return text
    words = " ".join(keywords).encode()
    return b"%b %b" % (text, words) if text else words


def parse_flags(names: Sequence[str]) -> tuple[Flag, bool, tuple[str, ...]]:
    """System flags, \\Seen and keywords. \\Recent and system flags that we do not know are dropped (RFC 9051 2.3.2)."""
    flags, seen, keywords = Flag(0), False, []
    for name in names:
        lower = name.lower()
        if lower == "\\seen":
            seen = True
        elif lower in _FLAG_OF:
            flags |= _FLAG_OF[lower]
        elif not name.startswith("\\"):
            keywords.append(name)
    return flags, seen, tuple(dict.fromkeys(keywords))


class Keywords:
    """The keywords a client has been told of, and how they are spelled."""

    __slots__ = ("_new", "_read_only", "_spelled")

    def __init__(self, *, read_only: bool) -> None:
        self._read_only = read_only
        self._spelled = _SPELLED
        self._new = False

    def meet(self, words: Sequence[str]) -> None:
        """Note the keywords of a message."""
        for word in words:
            if word.lower() not in self._spelled and len(self._spelled) < KEYWORDS_KEPT:
                # The common ones are shared by all sessions until one of them meets another.
                self._spelled = {**self._spelled, word.lower(): word}
                self._new = True

    def spell(self, word: str) -> str:
        """The keyword as it was first written: keywords differ by more than case (RFC 9051 2.3.2)."""
        return self._spelled.get(word.lower(), word)

    def flags(self) -> tuple[str, ...]:
        """Every flag a message of the folder may have."""
        return (*SYSTEM_FLAGS.values(), "\\Seen", *self._spelled.values())

    def lines(self) -> bytes:
        """FLAGS and PERMANENTFLAGS (RFC 9051 7.3.5, 7.1)."""
        names = " ".join(self.flags()).encode()
        permanent = b"" if self._read_only else names + b" \\*"
        return b"* FLAGS (%b)\r\n* OK [PERMANENTFLAGS (%b)] Flags that are kept.\r\n" % (names, permanent)

    def news(self) -> bytes:
        """The lines again if a keyword was met that they did not name; else nothing."""
        if not self._new:
            return b""
        self._new = False
        return self.lines()


_FLAG_OF = {name.lower(): flag for flag, name in SYSTEM_FLAGS.items()}
_SPELLED = {word.lower(): word for word in COMMON_KEYWORDS}
