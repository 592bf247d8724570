"""CAPABILITY, NOOP, CHECK, LOGOUT and STARTTLS (RFC 9051 6.1, 6.2.1; RFC 3501 6.4.1)."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from services.imap.feature import ANY, NOT_AUTHENTICATED, SELECTED, Command, Feature, State
from services.imap.session import Session
from services.imap.wire.cursor import Cursor
from services.imap.wire.responses import Bye, Capability, Ok, Response


async def capability(session: Session, _: None) -> AsyncGenerator[Response, None]:
    """Say what is spoken here."""
    yield Capability(session.capabilities())
    yield Ok("That is all.")


async def noop(session: Session, _: None) -> AsyncGenerator[Response, None]:
    """Nothing; completion brings the news of the selected folder."""
    yield Ok("Nothing done.")


async def logout(session: Session, _: None) -> AsyncGenerator[Response, None]:
    """End the session."""
    await session.close()
    session.state = State.LOGOUT
    yield Bye("Goodbye.")
    yield Ok("Logged out.")


async def starttls(session: Session, _: None) -> AsyncGenerator[Response, None]:
    """Go on over TLS once this has been answered."""
    session.channel.upgrade()
    yield Ok("Begin TLS now.")


BASE = Feature(
    ("IMAP4rev1",),
    rfc=3501,
    commands=(
        Command("CAPABILITY", ANY, Cursor.end, capability),
        Command("NOOP", ANY, Cursor.end, noop),
        Command("LOGOUT", ANY, Cursor.end, logout),
        Command("CHECK", SELECTED, Cursor.end, noop),
        Command("STARTTLS", NOT_AUTHENTICATED, Cursor.end, starttls),
    ),
)
# Built into the framer and the session: there is no command to them.
LITERAL_PLUS = Feature(("LITERAL+",), rfc=7888)
