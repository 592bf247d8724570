"""Values to octets: the other half of `responses`, and the building blocks of `Raw` lines."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import assert_never

from services.imap.wire import utf7
from services.imap.wire.responses import (
    Bad,
    Bye,
    Capability,
    Code,
    Continue,
    Enabled,
    Esearch,
    Exists,
    Expunge,
    Fetch,
    Flags,
    Id,
    ListResponse,
    Namespaces,
    No,
    Ok,
    Preauth,
    Raw,
    Recent,
    Response,
    Search,
    StatusResponse,
    Vanished,
)
from services.imap.wire.sequence import spans

# Longer strings go as literals: some clients read lines into fixed buffers.
QUOTED_OCTETS = 1024

_PLAIN = re.compile(rb"[\x01-\x09\x0b\x0c\x0e-\x21\x23-\x5b\x5d-\x7f]*")
_QUOTABLE = re.compile(rb"[\x01-\x09\x0b\x0c\x0e-\x7f]*")
_QUOTABLE_UTF8 = re.compile(rb"[\x01-\x09\x0b\x0c\x0e-\xff]*")
_SPECIAL = re.compile(rb'(["\\])')
_ATOM = re.compile(rb"[!#$&'+,\-./0-9:;<=>?@A-Z\[^_`a-z|}~]+")
_LINE_END = re.compile(r"[\r\n\0]+")


def encode(response: Response, tag: str, *, utf8: bool = False) -> bytes:
    """The lines of one response, CRLF included. `tag` is that of the running command.

    `utf8`: mailbox names and texts go as UTF-8 (RFC 6855 3).
    """
    match response:
        case Raw(octets):
            return octets
        case Ok() | No() | Bad():
            word = type(response).__name__.upper()
            return _status("*" if response.untagged else tag, word, response.code, response.text)
        case Bye(text, code):
            return _status("*", "BYE", code, text)
        case Preauth(text, code):
            return _status("*", "PREAUTH", code, text)
        case Continue(text):
            return b"+ %b\r\n" % (text if isinstance(text, bytes) else text.encode())
        case Exists(count):
            return b"* %d EXISTS\r\n" % count
        case Recent(count):
            return b"* %d RECENT\r\n" % count
        case Expunge(seq):
            return b"* %d EXPUNGE\r\n" % seq
        case Fetch(seq, items):
            return b"* %d FETCH (%b)\r\n" % (seq, b" ".join([b"%b %b" % (name.encode(), text) for name, text in items]))
        case Vanished(uids, earlier):
            return b"* VANISHED %b%b\r\n" % (b"(EARLIER) " if earlier else b"", uid_set(uids))
        case _:
            return b"* %b\r\n" % _untagged(response, tag, utf8=utf8)


def _untagged(
    response: Capability | Enabled | Id | Flags | ListResponse | StatusResponse | Namespaces | Search | Esearch,
    tag: str,
    *,
    utf8: bool,
) -> bytes:
    match response:
        case Capability(names):
            return " ".join(("CAPABILITY", *names)).encode("ascii")
        case Enabled(names):
            return " ".join(("ENABLED", *names)).encode("ascii")
        case Flags(flags):
            return f"FLAGS ({' '.join(flags)})".encode("ascii")
        case Id(fields):
            return _id(fields)
        case ListResponse():
            return _list(response, utf8=utf8)
        case StatusResponse(name, items):
            return b"STATUS %b (%b)" % (mailbox(name, utf8=utf8), _pairs(items))
        case Namespaces(personal, others, shared):
            return b"NAMESPACE %b %b %b" % tuple(_namespace(each, utf8=utf8) for each in (personal, others, shared))
        case Search(numbers, modseq):
            found = b"".join([b" %d" % number for number in numbers])
            return b"SEARCH%b" % found if modseq is None else b"SEARCH%b (MODSEQ %d)" % (found, modseq)
        case Esearch(items, uid):
            # RFC 4466 2.6.2: the tag tells which of several searches this answers.
            head = b"ESEARCH (TAG %b)%b" % (quoted(tag.encode("ascii")), b" UID" if uid else b"")
            return b"%b %b" % (head, _pairs(items)) if items else head
        case _:
            assert_never(response)


def _status(tag: str, word: str, code: Code | None, text: str) -> bytes:
    line = f"{tag} {word} ".encode("ascii")
    if code is not None:
        ready = code.text if isinstance(code.text, bytes) else code.text.encode()
        line += b"[%b%b%b] " % (code.name.encode("ascii"), b" " if ready else b"", ready)
    # RFC 9051 9: resp-text is never empty. A text that quotes the client must not end the line.
    return line + (_LINE_END.sub(" ", text) or ".").encode() + b"\r\n"


def _pairs(items: Iterable[tuple[str, int | bytes]]) -> bytes:
    return b" ".join(
        [name.encode("ascii") + (b" %d" % value if isinstance(value, int) else b" %b" % value) for name, value in items]
    )


def _id(fields: tuple[tuple[str, str | None], ...]) -> bytes:
    if not fields:
        return b"ID NIL"
    parts = [
        b"%b %b" % (string(name.encode()), nstring(None if value is None else value.encode())) for name, value in fields
    ]
    return b"ID (%b)" % b" ".join(parts)


def _list(response: ListResponse, *, utf8: bool) -> bytes:
    line = b"%b (%b) %b %b" % (
        b"LSUB" if response.lsub else b"LIST",
        " ".join(response.attributes).encode("ascii"),
        _delimiter(response.delimiter),
        mailbox(response.name, utf8=utf8),
    )
    if response.extended:
        extended = [b"%b %b" % (quoted(name.encode("ascii")), text) for name, text in response.extended]
        line += b" (%b)" % b" ".join(extended)
    return line


def _namespace(spaces: tuple[tuple[str, str], ...], *, utf8: bool) -> bytes:
    if not spaces:
        return b"NIL"
    return b"(%b)" % b"".join(
        [b"(%b %b)" % (string(_name(prefix, utf8=utf8), utf8=utf8), _delimiter(mark)) for prefix, mark in spaces]
    )


def _delimiter(mark: str | None) -> bytes:
    return b"NIL" if mark is None else quoted(mark.encode("ascii"))


# ---- strings ---------------------------------------------------------------------------------------------------


def quoted(octets: bytes) -> bytes:
    """A quoted string; the octets must be quotable (no CR, LF, NUL)."""
    if _PLAIN.fullmatch(octets):
        return b'"%b"' % octets
    return b'"%b"' % _SPECIAL.sub(rb"\\\1", octets)


def literal(octets: bytes) -> bytes:
    """A literal; a literal8 where there is a NUL (RFC 3516 4.4)."""
    return b"%b{%d}\r\n%b" % (b"~" if b"\0" in octets else b"", len(octets), octets)


def string(octets: bytes, *, utf8: bool = False) -> bytes:
    """A quoted string where one can hold it, else a literal. With `utf8` a quoted string may be UTF-8."""
    if len(octets) > QUOTED_OCTETS:
        return literal(octets)
    if _PLAIN.fullmatch(octets):
        return b'"%b"' % octets
    if _QUOTABLE.fullmatch(octets) or (utf8 and _QUOTABLE_UTF8.fullmatch(octets) and _is_utf8(octets)):
        return quoted(octets)
    return literal(octets)


def nstring(octets: bytes | None, *, utf8: bool = False) -> bytes:
    """A string; None is NIL."""
    return b"NIL" if octets is None else string(octets, utf8=utf8)


def astring(octets: bytes, *, utf8: bool = False) -> bytes:
    """An atom where it is one and cannot be taken for NIL, else a string."""
    if _ATOM.fullmatch(octets) and octets.upper() != b"NIL":
        return octets
    return string(octets, utf8=utf8)


def mailbox(name: str, *, utf8: bool = False) -> bytes:
    """The name of a mailbox: modified UTF-7, or UTF-8 where that was enabled."""
    return astring(_name(name, utf8=utf8), utf8=utf8)


def _name(name: str, *, utf8: bool) -> bytes:
    return name.encode() if utf8 else utf7.encode(name)


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode()
    except UnicodeDecodeError:
        return False
    return True


# ---- sets ------------------------------------------------------------------------------------------------------


def uid_set(numbers: Iterable[int]) -> bytes:
    """Ascending numbers as the shortest set: 1:3,7."""
    return b",".join([b"%d" % low if low == high else b"%d:%d" % (low, high) for low, high in spans(numbers)])
