"""ID (RFC 2971): who the server is; what the client says of itself is let go."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from services.imap.feature import ANY, Command, Feature
from services.imap.session import Session
from services.imap.wire.cursor import Cursor
from services.imap.wire.responses import Id, Ok, Response

MOST_FIELDS = 30  # RFC 2971 3.3


async def id_(session: Session, _: None) -> AsyncGenerator[Response, None]:
    """Answer with our name; the version is nobody's business before login."""
    yield Id((("name", "Posta"), ("vendor", "Posta")))
    yield Ok("Pleased to meet you.")


def _parse(cursor: Cursor) -> None:
    cursor.space()
    if cursor.accept(b"("):
        count = 0
        while not cursor.accept(b")"):
            if count:
                cursor.space()
            cursor.string()
            cursor.space()
            cursor.nstring()
            count += 1
            if count > MOST_FIELDS:
                raise cursor.error(f"more than {MOST_FIELDS} fields")
    else:
        cursor.keyword("NIL")
    cursor.end()


FEATURE = Feature(("ID",), rfc=2971, commands=(Command("ID", ANY, _parse, id_),))
