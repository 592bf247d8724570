"""Address lists of RFC 5322 3.4, strict where that is simple, forgiving where senders are not."""

import re
from collections.abc import Iterator
from typing import NamedTuple

# One list may name so many addresses, and where it needs the long way through the grammar it may have so many tokens;
# what follows is not read.
ADDRESS_LIMIT = 10_000
_TOKEN_LIMIT = 50_000


class Mailbox(NamedTuple):
    """One address: display name (encoded words as they stand), obsolete source route, local part unquoted, domain."""

    name: bytes | None
    route: bytes | None
    local: bytes
    domain: bytes


class GroupStart(NamedTuple):
    """The name of a group; its members follow until `GroupEnd`."""

    name: bytes


class GroupEnd(NamedTuple):
    """The ";" of a group."""


Address = Mailbox | GroupStart | GroupEnd

# The forms nearly all mail has: [phrase | "phrase"] <local@domain> and local@domain, in plain atoms.
_SIMPLE = re.compile(
    rb'[ \t\r\n]*+(?:(?:"([^"\\]*+)"[ \t\r\n]*+|([A-Za-z0-9!#$%&\'*+/=?^_`{|}~.\x80-\xff \t-]*+))'
    rb"<([A-Za-z0-9!#$%&'*+/=?^_`{|}~.\x80-\xff-]++)@([A-Za-z0-9.\x80-\xff-]++)>"
    rb"|([A-Za-z0-9!#$%&'*+/=?^_`{|}~.\x80-\xff-]++)@([A-Za-z0-9.\x80-\xff-]++))[ \t\r\n]*+(?:,|\Z)"
)
_TOKEN = re.compile(
    rb'[ \t\r\n\x00]++|"((?:[^"\\]++|\\.)*+)"?|(\[(?:[^\]\\]++|\\.)*+\]?)|([<>,:;@])|([^\x00 \t\r\n()<>\[:;@\\,"]++)|.',
    re.S,
)
_PARENS = re.compile(rb"[()]|\\.", re.S)
_ESCAPED = re.compile(rb"\\(.)", re.S)


class _Token(NamedTuple):
    text: bytes
    special: bool
    spaced: bool


def _unquote(text: bytes) -> bytes:
    return _ESCAPED.sub(rb"\1", text) if b"\\" in text else text


def _comment_end(raw: bytes, pos: int) -> int:
    """Offset behind the comment that opens at `pos`: comments nest, an open one reaches to the end."""
    depth = 0
    for paren in _PARENS.finditer(raw, pos):
        mark = paren.group()
        if mark == b"(":
            depth += 1
        elif mark == b")":
            depth -= 1
            if depth == 0:
                return paren.end()
    return len(raw)


def _tokens(raw: bytes, pos: int, reader: "_Reader") -> Iterator[_Token]:
    spaced = False
    end = len(raw)
    while pos < end and reader.tokens_left > 0:
        reader.tokens_left -= 1
        if raw[pos] == 0x28:
            start, pos = pos, _comment_end(raw, pos)
            reader.comments.append(_unquote(raw[start + 1 : pos].removesuffix(b")")).strip())
            spaced = True
            continue
        match = _TOKEN.match(raw, pos)
        if match is None:
            return
        pos = match.end()
        quoted, literal, special, atom = match.groups()
        if quoted is not None:
            yield _Token(_unquote(quoted), False, spaced)
        elif literal is not None:
            yield _Token(literal, False, spaced)
        elif special is not None:
            yield _Token(special, True, spaced)
        elif atom is not None:
            yield _Token(atom, False, spaced)
        else:
            spaced = True
            continue
        spaced = False


def _phrase(tokens: list[_Token]) -> bytes:
    return b"".join(b" " + t.text if t.spaced else t.text for t in tokens).strip()


def _spec(tokens: list[_Token]) -> tuple[bytes, bytes]:
    """Local part and domain of the tokens of an addr-spec; either may be empty."""
    at = next((i for i in range(len(tokens) - 1, -1, -1) if tokens[i].special and tokens[i].text == b"@"), None)
    if at is None:
        return _phrase(tokens), b""
    local = _phrase(tokens[:at])
    if b" ." in local or b". " in local:  # RFC 5322 4.4 obs-local-part: white space around dots means nothing
        local = b".".join(piece.strip() for piece in local.split(b"."))
    return local, b"".join(t.text for t in tokens[at + 1 :])


class _Reader:
    """Collects the tokens of one address at a time and appends what they amount to."""

    __slots__ = ("angle", "closed", "comments", "grouped", "out", "tokens_left", "words")

    def __init__(self, out: list[Address]) -> None:
        self.out = out
        self.grouped = False
        self.comments: list[bytes] = []
        self.words: list[_Token] = []
        self.angle: list[_Token] | None = None
        self.closed = False
        self.tokens_left = _TOKEN_LIMIT

    def flush(self) -> None:
        words, angle = self.words, self.angle
        # RFC 822 habit: user@host (Full Name)
        aside = next((c for c in reversed(self.comments) if c), None)
        if angle is not None:
            route = None
            if angle and angle[0].text == b"@" and angle[0].special:  # RFC 5322 4.4 obs-route
                colon = next((i for i, t in enumerate(angle) if t.special and t.text == b":"), None)
                if colon is not None:
                    route = b"".join(t.text for t in angle[:colon])
                    angle = angle[colon + 1 :]
            local, domain = _spec(angle)
            self.out.append(Mailbox(_phrase(words) or aside, route, local, domain))
        elif words:
            local, domain = _spec(words)
            self.out.append(Mailbox(aside, None, local, domain))
        self.words, self.angle, self.closed = [], None, False
        self.comments.clear()

    def end_group(self) -> None:
        self.flush()
        if self.grouped:
            self.out.append(GroupEnd())
            self.grouped = False

    def special(self, token: _Token) -> None:
        mark = token.text
        angle = self.angle
        if angle is not None and not self.closed:
            in_route = bool(angle) and angle[0].special and angle[0].text == b"@"
            if mark == b">":
                self.closed = True
            elif mark == b";":
                self.end_group()
            elif mark == b"," and not in_route:
                self.flush()
            else:
                angle.append(token)
        elif mark == b"<":
            if angle is not None:
                self.flush()
            self.angle = []
        elif mark == b",":
            self.flush()
        elif mark == b";":
            self.end_group()
        elif mark == b":" and not self.grouped and angle is None and not any(t.special for t in self.words):
            self.out.append(GroupStart(_phrase(self.words)))
            self.words = []
            self.comments.clear()
            self.grouped = True
        elif mark != b">" and not self.closed:
            self.words.append(token)

    def word(self, token: _Token) -> None:
        if self.closed:
            return
        (self.words if self.angle is None else self.angle).append(token)


def _parse_any(raw: bytes, pos: int, out: list[Address], limit: int) -> bool:
    reader = _Reader(out)
    for token in _tokens(raw, pos, reader):
        if token.special:
            reader.special(token)
            if len(out) >= limit:
                break
        else:
            reader.word(token)
    complete = len(out) < limit and reader.tokens_left > 0
    reader.end_group()
    return complete


def parse_addresses(raw: bytes, limit: int = ADDRESS_LIMIT) -> list[Address]:
    """The addresses of an unfolded address-list value, in order; groups as markers around their members.

    Reads groups, source routes, comments and quoted strings (RFC 5322 3.4 and 4.4). A word without "@" becomes a
    mailbox with an empty domain. About `limit` addresses are read, what follows is left out.
    """
    return read_addresses(raw, limit)[0]


def read_addresses(raw: bytes, limit: int = ADDRESS_LIMIT) -> tuple[list[Address], bool]:
    """What `parse_addresses` gives, and whether the list was read to its end."""
    out: list[Address] = []
    pos, end = 0, len(raw)
    match_simple = _SIMPLE.match
    while pos < end and len(out) < limit:
        match = match_simple(raw, pos)
        if match is None:
            return out, _parse_any(raw, pos, out, limit)
        quoted, phrase, local, domain, bare_local, bare_domain = match.groups()
        if bare_local is not None:
            out.append(Mailbox(None, None, bare_local, bare_domain))
        else:
            name = quoted if quoted is not None else b" ".join(phrase.split())
            out.append(Mailbox(name or None, None, local, domain))
        pos = match.end()
    return out, pos >= end
