"""Content-Type and Content-Disposition: a value and its parameters, with RFC 2231 and what senders do instead."""

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from services.core.mime.words import clean, decode_charset, decode_words

# Parameters read of one field; no sender needs more.
PARAM_LIMIT = 256
# Octets read of one percent-encoded value.
_VALUE_LENGTH = 8192

Params = tuple[tuple[str, bytes], ...]

_TYPE = re.compile(rb"\s*+([^\s/;()\"]++)\s*+/\s*+([^\s/;()\"]++)")
_TOKEN = re.compile(rb"\s*+([^\s;()\"]++)")
_PARAM = re.compile(rb";\s*+([^\s=;\"]++)\s*+=\s*+(?:\"((?:[^\"\\]++|\\.)*+)\"?[^;]*+|([^;]*+))", re.S)
_ESCAPED = re.compile(rb"\\(.)", re.S)
_CONTINUED = re.compile(r"([^*]+)\*(?:(\d{1,3})(\*)?)?\Z")


class ContentType(NamedTuple):
    """Lower-case type and subtype; parameters in order, names lower-case, values unquoted but otherwise raw."""

    type: str
    subtype: str
    params: Params


class Disposition(NamedTuple):
    """Lower-case disposition and its raw parameters (RFC 2183)."""

    kind: str
    params: Params


TEXT_PLAIN = ContentType("text", "plain", ())
MESSAGE_RFC822 = ContentType("message", "rfc822", ())


def _params(raw: bytes, pos: int) -> Params:
    out: list[tuple[str, bytes]] = []
    for match in _PARAM.finditer(raw, pos):
        name, quoted, plain = match.groups()
        if quoted is not None:
            value = _ESCAPED.sub(rb"\1", quoted) if b"\\" in quoted else quoted
        else:
            value = plain.strip()
            # RFC 2045 5.1: a comment may stand behind a value; in its midst it is an unquoted file name.
            if value.endswith(b")") and b"(" in value:
                value = value[: value.rfind(b"(")].rstrip()
        out.append((name.decode("latin-1").lower(), value))
        if len(out) >= PARAM_LIMIT:
            break
    return tuple(out)


@lru_cache(maxsize=512)
def _content_type(raw: bytes) -> ContentType | None:
    match = _TYPE.match(raw)
    if match is None:
        return None
    main, sub = match.groups()
    return ContentType(main.decode("latin-1").lower(), sub.decode("latin-1").lower(), _params(raw, match.end()))


def content_type(raw: bytes) -> ContentType:
    """The media type an unfolded Content-Type value names; text/plain for what names none (RFC 2045 5.2)."""
    # Mail repeats a few dozen short values; long ones must not push them out of the memo.
    found = _content_type(raw) if len(raw) <= 120 else _content_type.__wrapped__(raw)
    return TEXT_PLAIN if found is None else found


def disposition(raw: bytes) -> Disposition | None:
    """The disposition an unfolded Content-Disposition value names (RFC 2183), None for an empty one."""
    match = _TOKEN.match(raw)
    if match is None:
        return None
    return Disposition(match[1].decode("latin-1").lower(), _params(raw, match.end()))


def _extended(value: bytes) -> tuple[str, bytes]:
    """Charset and octets of an RFC 2231 4 extended value; a value without its two quotes is taken as UTF-8."""
    pieces = value[:_VALUE_LENGTH].split(b"'", 2)
    if len(pieces) == 3:
        return pieces[0].decode("latin-1"), unquote_to_bytes(pieces[2])
    return "", unquote_to_bytes(value[:_VALUE_LENGTH])


def decode_params(params: Params) -> dict[str, str]:
    """Parameters as text: RFC 2231 continuations joined and charsets applied, else RFC 2047 words decoded.

    The first of two plain parameters of one name wins; an RFC 2231 form wins over the plain one beside it.
    """
    plain: dict[str, str] = {}
    pieces: dict[str, dict[int, tuple[bool, bytes]]] = {}
    for name, value in params:
        match = _CONTINUED.match(name) if "*" in name else None
        if match is None:
            if name not in plain:
                plain[name] = clean(decode_words(value))
        else:
            number = match[2]
            extended = number is None or match[3] is not None
            pieces.setdefault(match[1], {}).setdefault(int(number or 0), (extended, value))
    for name, numbered in pieces.items():
        if 0 not in numbered:
            continue
        extended, value = numbered[0]
        charset, joined = _extended(value) if extended else ("", value)
        octets = [joined]
        for index in range(1, len(numbered)):
            if index not in numbered:
                break
            extended, value = numbered[index]
            octets.append(unquote_to_bytes(value[:_VALUE_LENGTH]) if extended else value)
        plain[name] = clean(decode_charset(b"".join(octets), charset or None))
    return plain


def param(params: Params, name: str) -> str | None:
    """One decoded parameter, None if there is none of this lower-case name."""
    plain: bytes | None = None
    for key, value in params:
        if key == name:
            plain = value if plain is None else plain
        elif key.startswith(name + "*"):
            return decode_params(params).get(name)
    return None if plain is None else clean(decode_words(plain))
