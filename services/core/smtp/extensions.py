"""What EHLO announces: one record for each extension, one tuple of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from services.core.smtp.options import Options
from services.core.smtp.session import Session


@dataclass(frozen=True, slots=True)
class Offer:
    """What an extension looks at to know whether, and with what words, it is announced."""

    options: Options
    session: Session
    tls_possible: bool
    mechanisms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Extension:
    """One EHLO keyword. `words` gives what follows it, or None when it is not offered now."""

    keyword: str
    rfc: int
    words: Callable[[Offer], str | None] = lambda _offer: ""


EXTENSIONS: Final = (
    Extension("PIPELINING", 2920),
    Extension("SIZE", 1870, lambda offer: str(offer.options.max_size)),
    Extension("8BITMIME", 6152),
    Extension("SMTPUTF8", 6531),
    Extension("CHUNKING", 3030),
    Extension("DSN", 3461),
    Extension("ENHANCEDSTATUSCODES", 2034),
    Extension("LIMITS", 9422, lambda offer: f"RCPTMAX={offer.options.max_recipients}"),
    # RFC 8689 2: only where TLS is there already.
    Extension("REQUIRETLS", 8689, lambda offer: "" if offer.session.tls is not None else None),
    Extension("STARTTLS", 3207, lambda offer: "" if offer.tls_possible and offer.session.tls is None else None),
    Extension("AUTH", 4954, lambda offer: " ".join(offer.mechanisms) or None),
    Extension("HELP", 5321),
)


def keywords(offer: Offer) -> tuple[str, ...]:
    """The lines of an EHLO reply after its first."""
    said = ((extension.keyword, extension.words(offer)) for extension in EXTENSIONS)
    offered = (f"{keyword} {words}".rstrip() for keyword, words in said if words is not None)
    return (*offered, *offer.options.extra_keywords)
