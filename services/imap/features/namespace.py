"""NAMESPACE (RFC 2342): one personal namespace, nobody else's."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from services.core.foldername import SEPARATOR
from services.imap.feature import AUTHENTICATED, Command, Feature
from services.imap.session import Session
from services.imap.wire.cursor import Cursor
from services.imap.wire.responses import Namespaces, Ok, Response


async def namespace(session: Session, _: None) -> AsyncGenerator[Response, None]:
    """Say where mailboxes lie."""
    yield Namespaces(personal=(("", SEPARATOR),))
    yield Ok("That is all.")


FEATURE = Feature(("NAMESPACE",), rfc=2342, commands=(Command("NAMESPACE", AUTHENTICATED, Cursor.end, namespace),))
