"""A database URL that leads through a pooler: `postgresql://...?prepared_statements=off`. Pure.

A pooler that shares connections between transactions gives the next statement another connection, which does not know
what was prepared on the one before. PgBouncer carries prepared statements over since 1.21; where it does not, the URL
says so, and every statement is sent whole.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

_KEY = "prepared_statements"
_WORDS = {"on": True, "off": False}


def split(url: str) -> tuple[str, bool]:
    """The URL as a driver knows it, and whether statements may be prepared. Raises ValueError, without the URL."""
    parts = urlsplit(url)
    said = parse_qsl(parts.query, keep_blank_values=True)
    rest = [(key, value) for key, value in said if key != _KEY]
    if len(rest) == len(said):
        return url, True
    word = dict(said)[_KEY]
    if word not in _WORDS:
        raise ValueError(f"{_KEY}: expected on or off")
    return urlunsplit(parts._replace(query=urlencode(rest))), _WORDS[word]
