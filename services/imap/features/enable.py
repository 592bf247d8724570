"""ENABLE (RFC 5161)."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from services.imap.feature import AUTHENTICATED, Command, Feature
from services.imap.session import Session
from services.imap.wire.cursor import Cursor
from services.imap.wire.responses import Enabled, Ok, Response


async def enable(session: Session, names: tuple[str, ...]) -> AsyncGenerator[Response, None]:
    """Turn on what can be turned on; names we do not know are passed over."""
    turned = tuple(name for name in names if name in session.services.registry.enables and name not in session.enabled)
    for name in turned:
        session.enable(name)
    yield Enabled(turned)
    yield Ok("Enabled.")


def _parse(cursor: Cursor) -> tuple[str, ...]:
    cursor.space()
    names = [cursor.atom().upper()]
    while cursor.accept(b" "):
        names.append(cursor.atom().upper())
    cursor.end()
    return tuple(dict.fromkeys(names))


FEATURE = Feature(("ENABLE",), rfc=5161, commands=(Command("ENABLE", AUTHENTICATED, _parse, enable),))
