"""Every command: one function, one entry in `COMMANDS`, from which dispatch, states and CAPA derive."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as BadBase64
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from services.core.auth.dialogue import authenticate
from services.core.auth.login import (
    AuthError,
    AuthFailed,
    AuthThrottled,
    AuthUnavailable,
    Cancelled,
    ExchangeBroken,
    MechanismUnknown,
)
from services.core.store.engine import StoreUnavailable
from services.pop.maildrop import NoSuchMessage
from services.pop.session import InUse, Session, State
from services.pop.wire import Line, err, multiline, ok, top

_BOTH = (State.AUTHORIZATION, State.TRANSACTION)
_START = (State.AUTHORIZATION,)
_DROP = (State.TRANSACTION,)
_DIGITS = 9


class BadArgument(Exception):
    """The argument is not of the command's form."""


class Command(NamedTuple):
    """One command. `capability`: the CAPA line it stands for, given the session (RFC 2449 5)."""

    keyword: str
    states: tuple[State, ...]
    run: Callable[[Session, str], Awaitable[bytes]]
    capability: Callable[[Session], str] = lambda _: ""


# Domain errors in the protocol's words (RFC 2449 8, RFC 3206): the one table. AUTH means "ask the user for another
# password", so only a wrong one is told so.
_ERRORS: tuple[tuple[type[Exception], str, str], ...] = (
    (NoSuchMessage, "", "No such message"),
    (BadArgument, "", "Bad argument"),
    (InUse, "IN-USE", "Another session has the maildrop"),
    (Cancelled, "", "Cancelled"),
    (ExchangeBroken, "", ""),
    (MechanismUnknown, "", "No such mechanism here"),
    (AuthThrottled, "SYS/TEMP", "Too many failures, try again later"),
    (AuthUnavailable, "SYS/TEMP", "Logins cannot be checked now, try again later"),
    (AuthFailed, "AUTH", "Name and password do not match"),
    (AuthError, "AUTH", "Login failed"),
    (StoreUnavailable, "SYS/TEMP", "The mail store cannot be reached, try again later"),
)


async def execute(session: Session, line: Line) -> bytes:
    """The whole reply to one command line; never raises for what a client or a lost store can cause."""
    command = _BY_KEYWORD.get(line.keyword)
    if command is None:
        return err("Unknown command")
    if session.state not in command.states:
        return err("Not now")
    try:
        return await command.run(session, line.argument)
    except tuple(kind for kind, _, _ in _ERRORS) as error:
        code, text = next((code, text) for kind, code, text in _ERRORS if isinstance(error, kind))
        return err(text or str(error), code)


def _number(argument: str) -> int:
    """A message number or a count of lines, as RFC 1939 3 writes them: digits, here at most nine that tell."""
    digits = argument.strip(" ")
    if not digits.isascii() or not digits.isdigit():
        raise BadArgument
    return int(digits) if len(digits) <= _DIGITS else 10**_DIGITS


async def _capa(session: Session, argument: str) -> bytes:
    lines = [text for command in COMMANDS if (text := command.capability(session))]
    lines += ["RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "EXPIRE NEVER", "IMPLEMENTATION Posta"]
    return multiline(ok("Capabilities"), "".join(f"{line}\r\n" for line in lines).encode())


async def _user(session: Session, argument: str) -> bytes:
    if not session.mechanisms():
        return err("Say STLS first")
    if not argument:
        raise BadArgument
    session.username = argument
    return ok()  # whoever it is: RFC 1939 7 allows it, and a refusal would tell which names exist


async def _pass(session: Session, argument: str) -> bytes:
    if not session.username:
        return err("USER first")
    username, session.username = session.username, ""
    await session.enter(await session.shared.authenticator.verify(username, argument, session.client))
    return _welcome(session)


async def _auth(session: Session, argument: str) -> bytes:
    """RFC 5034 4."""
    mechanism, _, initial = argument.partition(" ")
    if not mechanism:
        return multiline(ok(), "".join(f"{name}\r\n" for name in session.mechanisms()).encode())
    if mechanism.upper() not in session.mechanisms():
        return err("No such mechanism here")
    login = await authenticate(
        session.shared.authenticator, mechanism.upper(), _initial(initial), session.ask, session.client
    )
    await session.enter(login)
    return _welcome(session)


def _initial(argument: str) -> bytes | None:
    if not argument:
        return None
    if argument == "=":
        return b""  # RFC 5034 4: an initial response that is there and empty
    try:
        return b64decode(argument, validate=True)
    except (BadBase64, ValueError) as error:
        raise BadArgument from error


def _welcome(session: Session) -> bytes:
    count, octets = session.maildrop.totals()
    return ok(f"{count} messages, {octets} octets")


async def _stls(session: Session, argument: str) -> bytes:
    if session.tls:
        return err("TLS is on already")
    if not session.stls:
        return err("TLS is not configured")
    session.begins_tls = True  # the connection starts it when it has sent this reply (RFC 2595 4)
    return ok("Begin TLS")


async def _utf8(session: Session, argument: str) -> bytes:
    # Names and passwords are UTF-8 in either case, and so are messages that are: RFC 6856 2.1 would have the others
    # downgraded for clients that do not say this, and what was received is served as it was received.
    return ok("UTF-8")


async def _stat(session: Session, argument: str) -> bytes:
    return ok("{} {}".format(*session.maildrop.totals()))


async def _list(session: Session, argument: str) -> bytes:
    drop = session.maildrop
    if argument:
        number = _number(argument)
        return ok(f"{number} {drop.size(number)}")
    return multiline(_welcome(session), "".join([f"{n} {drop.size(n)}\r\n" for n in drop.numbers()]).encode())


async def _uidl(session: Session, argument: str) -> bytes:
    drop = session.maildrop
    if argument:
        number = _number(argument)
        return ok(f"{number} {drop.name(number)}")
    return multiline(ok(), "".join([f"{n} {drop.name(n)}\r\n" for n in drop.numbers()]).encode())


async def _retr(session: Session, argument: str) -> bytes:
    body = await session.body(_number(argument))
    return _served(session, multiline(ok(f"{len(body.octets)} octets"), body.octets))


async def _top(session: Session, argument: str) -> bytes:
    number, _, count = argument.strip(" ").partition(" ")
    lines = _number(count)
    body = await session.body(_number(number))
    return _served(session, multiline(ok(), top(body.octets, body.header_length, lines)))


def _served(session: Session, reply: bytes) -> bytes:
    session.served += 1
    session.served_octets += len(reply)
    return reply


async def _dele(session: Session, argument: str) -> bytes:
    session.maildrop.mark(_number(argument))
    return ok("Marked")


async def _rset(session: Session, argument: str) -> bytes:
    session.maildrop.reset()
    return _welcome(session)


async def _noop(session: Session, argument: str) -> bytes:
    return ok()


async def _quit(session: Session, argument: str) -> bytes:
    session.over = True
    try:
        gone = await session.update()
    except StoreUnavailable:
        # RFC 1939 6: what could not be removed stays, and the client is told
        return err("Nothing was deleted: the mail store cannot be reached", "SYS/TEMP")
    finally:
        # RFC 1939 6: the lock is let go before the reply, so whoever reads it may log in again at once.
        await session.close()
    return ok(f"{gone} messages deleted" if gone else "Bye")


COMMANDS = (
    Command("CAPA", _BOTH, _capa),
    Command("USER", _START, _user, lambda s: "USER" if s.mechanisms() else ""),
    Command("PASS", _START, _pass),
    Command("AUTH", _START, _auth, lambda s: f"SASL {' '.join(s.mechanisms())}" if s.mechanisms() else ""),
    Command("STLS", _START, _stls, lambda s: "STLS" if s.stls and not s.tls else ""),
    Command("UTF8", _START, _utf8, lambda _: "UTF8 USER"),
    Command("STAT", _DROP, _stat),
    Command("LIST", _DROP, _list),
    Command("UIDL", _DROP, _uidl, lambda _: "UIDL"),
    Command("RETR", _DROP, _retr),
    Command("TOP", _DROP, _top, lambda _: "TOP"),
    Command("DELE", _DROP, _dele),
    Command("RSET", _DROP, _rset),
    Command("NOOP", _DROP, _noop),
    Command("QUIT", _BOTH, _quit),
)
_BY_KEYWORD = {command.keyword: command for command in COMMANDS}
