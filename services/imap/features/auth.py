"""LOGIN (RFC 9051 6.2.3) and AUTHENTICATE (6.2.2) with SASL-IR (RFC 4959)."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator
from typing import NamedTuple

from services.core.auth.dialogue import authenticate
from services.core.auth.login import Cancelled, ExchangeBroken, Login
from services.core.auth.sasl import offered
from services.imap.feature import NOT_AUTHENTICATED, Command, Feature
from services.imap.session import Refused, Session
from services.imap.wire.cursor import Cursor
from services.imap.wire.responses import Code, Continue, No, Ok, Response


class LoginArgs(NamedTuple):
    """A name and its password."""

    username: str
    password: str


class AuthArgs(NamedTuple):
    """A mechanism, and what the client says first."""

    mechanism: str
    initial: bytes | None


async def _welcome(session: Session, login: Login) -> Ok:
    await session.logged_in(login)
    # RFC 9051 6.2.2: with the capabilities told here, the client need not ask.
    return Ok("Logged in.", Code("CAPABILITY", " ".join(session.capabilities())))


async def login(session: Session, args: LoginArgs) -> AsyncGenerator[Response, None]:
    """Log in with a password in the clear, which needs TLS around it."""
    if not session.may_login:
        raise Refused(No("Logins need TLS here.", Code("PRIVACYREQUIRED")))
    found = await session.services.authenticator.verify(args.username, args.password, session.client)
    yield await _welcome(session, found)


async def authenticate_(session: Session, args: AuthArgs) -> AsyncGenerator[Response, None]:
    """Log in by a SASL mechanism."""
    if args.mechanism not in offered(tls=session.channel.tls, plaintext_auth=session.services.plaintext_auth):
        raise Refused(No("That mechanism is not offered here.", Code("CANNOT")))

    async def ask(challenge: bytes) -> bytes:
        await session.channel.write(Continue(b64encode(challenge)))
        return decode(await session.channel.read_line())

    found = await authenticate(session.services.authenticator, args.mechanism, args.initial, ask, session.client)
    yield await _welcome(session, found)


def decode(line: bytes) -> bytes:
    """A client's answer out of its base64; raises `Cancelled` for "*"."""
    if line == b"*":
        raise Cancelled("*")
    try:
        return b64decode(line, validate=True)
    except binascii.Error as error:
        raise ExchangeBroken("that is no base64") from error


def _parse_login(cursor: Cursor) -> LoginArgs:
    cursor.space()
    username = cursor.astring()
    cursor.space()
    password = cursor.astring()
    cursor.end()
    # What is not UTF-8 is nobody's name and no password of ours.
    return LoginArgs(username.decode("utf-8", "replace"), password.decode("utf-8", "replace"))


def _parse_authenticate(cursor: Cursor) -> AuthArgs:
    cursor.space()
    mechanism = cursor.atom().upper()
    initial = None
    if cursor.accept(b" "):
        # RFC 4959 3: "=" is an initial response that is there and empty.
        initial = b"" if cursor.accept(b"=") else decode(cursor.base64())
    cursor.end()
    return AuthArgs(mechanism, initial)


FEATURE = Feature(
    ("SASL-IR",),
    rfc=9051,
    commands=(
        Command("LOGIN", NOT_AUTHENTICATED, _parse_login, login),
        Command("AUTHENTICATE", NOT_AUTHENTICATED, _parse_authenticate, authenticate_),
    ),
)
