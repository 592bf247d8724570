"""Rules of operators about the way out: `relay_routes`, a row for each."""

from __future__ import annotations

import re
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.core.address import BadAddress, domain, parse
from services.core.seal import Seal


class Rule(NamedTuple):
    """Mail of `sender` to `recipient` goes through `host`.

    `sender`: an address, `@domain`, or empty for everybody. `recipient`: a domain, `.domain` for those below it, or
    empty for all. `host` empty: by MX, an exception from a wider rule.
    """

    sender: str
    recipient: str
    host: str
    port: int
    implicit_tls: bool
    username: str
    password: str | None  # as it is kept, sealed, wherever a rule comes out of the store; None: nobody can open it


class BadRule(ValueError):
    """No rule; the text says why, in words fit for an operator."""


class NoSuchRule(Exception):
    """There is no rule for that."""


_PUT = text("""
INSERT INTO relay_routes (sender, recipient, host, port, implicit_tls, username, password)
VALUES (:sender, :recipient, :host, :port, :implicit_tls, :username, :password)
ON CONFLICT (sender, recipient) DO UPDATE SET host = :host, port = :port, implicit_tls = :implicit_tls,
  username = :username, password = :password
""")
_ALL = text("""
SELECT sender, recipient, host, port, implicit_tls, username, password FROM relay_routes ORDER BY recipient, sender
""")
# Not over a password that an operator has given meanwhile.
_RESEAL = text("""
UPDATE relay_routes SET password = :password
WHERE (sender, recipient, password) = (:sender, :recipient, :old)
""")
_REMOVE = text("DELETE FROM relay_routes WHERE (sender, recipient) = (:sender, :recipient) RETURNING 1")

_HOST = re.compile(r"\[?([0-9a-fA-F.:]+|[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?)\]?")


def rule(
    host: str, *, port: int = 587, sender: str = "", recipient: str = "", implicit_tls: bool = False,
    username: str = "", password: str = "",
) -> Rule:  # fmt: skip
    """The rule in canonical form. Raises `BadRule`."""
    if host and _HOST.fullmatch(host) is None:
        raise BadRule(f"{host!r} is no host name or address")
    if not 1 <= port <= 65535:
        raise BadRule(f"{port} is no port")
    if bool(username) != bool(password):
        raise BadRule("a login has a name and a password")
    if username and not host:
        raise BadRule("a login needs a host")
    if not (sender or recipient or host):
        raise BadRule("without any rule, mail goes by MX already")
    place = host.strip("[]").lower()
    return Rule(_sender(sender), _recipient(recipient), place, port, implicit_tls, username, password)


async def put(conn: AsyncConnection, new: Rule, seal: Seal) -> None:
    """Keep the rule, instead of the one for the same sender and recipient if there is one. Raises `NoSeal`."""
    kept = seal.close(new.password) if new.password else ""
    await conn.execute(_PUT, {**new._asdict(), "password": kept})


async def reseal(conn: AsyncConnection, seal: Seal) -> int:
    """Seal every password by the newest secret; how many were not. Raises `NoSeal`, `Unopened`."""
    old = [rule for rule in await every(conn) if rule.password and not seal.holds(rule.password)]
    for rule in old:
        kept = {"old": rule.password, "password": seal.close(seal.open(rule.password or ""))}
        await conn.execute(_RESEAL, {**kept, "sender": rule.sender, "recipient": rule.recipient})
    return len(old)


async def every(conn: AsyncConnection) -> list[Rule]:
    """All of them, passwords as they are kept."""
    return [Rule(*row) for row in await conn.execute(_ALL)]


async def remove(conn: AsyncConnection, *, sender: str = "", recipient: str = "") -> None:
    """Forget the rule. Raises `BadRule` or `NoSuchRule`."""
    wanted = {"sender": _sender(sender), "recipient": _recipient(recipient)}
    if (await conn.execute(_REMOVE, wanted)).first() is None:
        raise NoSuchRule(f"there is no route from {sender or 'everybody'} to {recipient or 'everywhere'}")


def _sender(given: str) -> str:
    try:
        if given.startswith("@"):
            return f"@{domain(given[1:])}"
        return parse(given).key if given else ""
    except BadAddress as error:
        raise BadRule(f"sender: {error}") from error


def _recipient(given: str) -> str:
    try:
        if given.startswith("."):
            return f".{domain(given[1:])}"
        return domain(given) if given else ""
    except BadAddress as error:
        raise BadRule(f"recipient: {error}") from error
