"""Key records: what a domain's DNS has to show, and whether it does. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_STRING = 255  # RFC 1035 3.3: a character-string has a length of one octet
_TTL_S = 3600
_WHITE = re.compile(r"\s+")


def name(domain: str, selector: str) -> str:
    """Where the record stands (RFC 6376 3.6.2.1), without a dot at its end."""
    return f"{selector}._domainkey.{domain}"


def value(algorithm: str, public_key: str) -> str:
    """The record as one text (RFC 6376 3.6.1)."""
    return f"v=DKIM1; k={algorithm}; p={public_key}"


def strings(text: str) -> list[str]:
    """The text in the pieces that a TXT record holds it in; readers put them together without a space."""
    return [text[at : at + _STRING] for at in range(0, len(text), _STRING)]


def line(domain: str, selector: str, algorithm: str, public_key: str) -> str:
    """The record as one line of a zone file."""
    pieces = " ".join(f'"{piece}"' for piece in strings(value(algorithm, public_key)))
    return f"{name(domain, selector)}. {_TTL_S} IN TXT ( {pieces} )"


def shows(records: Iterable[Sequence[bytes]], public_key: str) -> bool:
    """Whether verifiers would find this key: one record at the name, with this key and no other."""
    texts = [b"".join(pieces).decode("ascii", "replace") for pieces in records]
    found = [tags for tags in map(_tags, texts) if tags.get("v", "DKIM1") == "DKIM1" and "p" in tags]
    # RFC 6376 3.6.2.2: with several records the result is undefined.
    return len(found) == 1 and found[0]["p"] == public_key


def _tags(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(";") if "=" in part)
    return {tag.strip(): _WHITE.sub("", what) for tag, _, what in pairs}
