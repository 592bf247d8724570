"""Lists of tag=value, as DKIM, ARC and DMARC write them (RFC 6376 3.2). Pure."""

from __future__ import annotations

import re

_SPACE = re.compile(r"[ \t\r\n]+")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class BadTags(ValueError):
    """Not a list of tags; the text says why."""


def parse(text: str) -> dict[str, str]:
    """Tag to value, in order, white space around both gone. Raises BadTags: for a tag that comes twice as well."""
    found: dict[str, str] = {}
    pieces = text.split(";")
    if not pieces[-1].strip(" \t\r\n"):
        pieces.pop()
    for piece in pieces:
        name, equals, value = piece.partition("=")
        name = name.strip(" \t\r\n")
        if not equals or _NAME.fullmatch(name) is None:
            raise BadTags("not a list of tags")
        if name in found:
            raise BadTags(f"{name}= comes twice")
        found[name] = value.strip(" \t\r\n")
    return found


def packed(value: str) -> str:
    """A value in which white space means nothing, without it."""
    return _SPACE.sub("", value)


def listed(value: str) -> tuple[str, ...]:
    """A colon-separated value."""
    return tuple(packed(value).split(":"))
