"""Host names against the patterns of certificates and policies. Pure."""

from __future__ import annotations


def covers(pattern: str, name: str) -> bool:
    """Whether `pattern` is the name, or has `*` for the whole of its first label (RFC 6125 6.4.3, RFC 8461 4.1)."""
    pattern, name = pattern.rstrip(".").lower(), name.rstrip(".").lower()
    if not pattern.startswith("*."):
        return pattern == name
    first, dot, rest = name.partition(".")
    return bool(first and dot) and rest == pattern[2:]
