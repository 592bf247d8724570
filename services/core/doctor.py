"""What is well with a platform, what is wrong with it, and what to do: the checks of `posta doctor`.

Every check is one function and one entry in `CHECKS`. It asks, changes nothing, and says in whole sentences what it
found; what it cannot find out is wrong as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from services.core.bus import Bus, BusUnavailable
from services.core.dns import Dns
from services.core.endpoint import Endpoint, connect, endpoint
from services.core.records import domain_records, is_reserved
from services.core.settings import Filter, Settings
from services.core.store import accounts, dkim
from services.core.store.engine import Store, StoreUnavailable
from services.core.store.migrate import lacks, revisions
from services.core.tls import BadCertificate, leaf

CHECK_S = 20.0
_ANSWER_S = 5.0
_SOON = timedelta(days=14)
_PAGE = 1000
# What "250 means kept" rests on in Postgres.
_DURABLE = ("fsync", "full_page_writes", "synchronous_commit")


class State(StrEnum):
    OK = "ok"
    NOTE = "note"
    """Works as it was set; an operator should know."""
    WRONG = "wrong"


class Line(NamedTuple):
    """One finding: about what, how it stands, and what would mend it."""

    check: str
    state: State
    says: str
    do: str = ""


@dataclass(frozen=True, slots=True)
class House:
    """The platform under examination."""

    settings: Settings
    store: Store
    bus: Bus
    dns: Dns
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def host(self) -> str:
        """What clients and other servers call us."""
        return self.settings.sync.public_hostname or self.settings.hostname


Check = Callable[[House], Awaitable[list[Line]]]


async def examine(house: House) -> list[Line]:
    """Every finding, in the order of the checks, which run side by side. Raises nothing but CancelledError."""
    found = await asyncio.gather(*(_bounded(name, check, house) for name, check in CHECKS))
    return [line for lines in found for line in lines]


async def _bounded(name: str, check: Check, house: House) -> list[Line]:
    try:
        async with asyncio.timeout(CHECK_S):
            return await check(house)
    except Exception as error:
        return [Line(name, State.WRONG, f"could not be checked: {error or type(error).__name__}")]


# ---- store and bus ---------------------------------------------------------------------------------------------


async def _store(house: House) -> list[Line]:
    try:
        present, newest = await revisions(house.store)
    except StoreUnavailable as error:
        return [Line("store", State.WRONG, f"Postgres does not answer: {error}", "see POSTA_DATABASE_URL")]
    which = "its newest revision" if present == newest else "the revision of a newer version"
    lines = [Line("store", State.OK, f"Postgres answers, the schema is at {which} ({present})")]
    if reason := lacks(present):
        lines = [Line("store", State.WRONG, reason, "run `python -m services.core.store.migrate`")]
    async with house.store.driver("doctor.durability") as conn:
        off = [name for name in _DURABLE if await conn.fetchval("SELECT current_setting($1)", name) == "off"]
    return lines + [
        Line("store", State.WRONG, f"{name} is off: accepted mail may be lost in a crash", f"set {name} = on")
        for name in off
    ]


async def _bus(house: House) -> list[Line]:
    try:
        await house.bus.check()
        work = await house.bus.api("STREAM.INFO.WORK", {})
    except BusUnavailable as error:
        return [
            Line("bus", State.WRONG, f"NATS cannot be used: {error}", "see POSTA_NATS_URL; until then doors say 451")
        ]
    waiting = work.get("state", {}).get("messages", 0)
    return [Line("bus", State.OK, f"NATS answers, JetStream is ready, {waiting} pieces of work wait")]


# ---- certificate -----------------------------------------------------------------------------------------------


async def _certificate(house: House) -> list[Line]:
    cert, key = house.settings.tls.cert, house.settings.tls.key
    if cert is None or key is None:
        do = "set POSTA_TLS_CERT and POSTA_TLS_KEY"
        return [Line("certificate", State.WRONG, "no certificate is set: no door offers TLS, nobody can log in", do)]
    try:
        shown = leaf(cert, key)
    except BadCertificate as error:
        return [Line("certificate", State.WRONG, str(error), "put a certificate and its key there; no restart needed")]
    left, until = shown.ends - house.at, f"{shown.ends:%Y-%m-%d}"
    if left < timedelta():
        lines = [Line("certificate", State.WRONG, f"it ended on {until}", f"renew {cert}")]
    elif left < _SOON:
        lines = [Line("certificate", State.WRONG, f"it ends in {left.days} days, on {until}", f"renew {cert}")]
    else:
        lines = [Line("certificate", State.OK, f"{', '.join(sorted(shown.names))}, good until {until}")]
    for host in dict.fromkeys((house.settings.hostname, house.host)):
        if not shown.is_for(host):
            do = "get one with that name, or set POSTA_HOSTNAME to a name it has"
            lines.append(Line("certificate", State.WRONG, f"it is not good for {host}", do))
    return lines


# ---- engines ---------------------------------------------------------------------------------------------------


class _Server(NamedTuple):
    """What one setting names, and how it is asked whether it is well."""

    key: str
    words: tuple[str, ...]
    port: int
    program: str
    good: str
    missing: str
    question: bytes
    answer: bytes


def _servers(settings: Filter) -> tuple[_Server, ...]:
    password = settings.rspamd_password.get_secret_value() if settings.rspamd_password else ""
    stat = f"GET /stat HTTP/1.0\r\nPassword: {password}\r\n\r\n".encode()
    return (
        _Server(
            *("POSTA_FILTER_CLAMD", settings.clamd, 3310, "clamd", "viruses are examined"),
            "viruses are not examined beyond a few built-in signatures: no clamd is configured",
            *(b"zVERSION\0", b"ClamAV"),
        ),
        _Server(
            *("POSTA_FILTER_RSPAMD", settings.rspamd, 11333, "rspamd", "spam is examined"),
            "spam is not examined: no rspamd is configured",
            *(b"GET /ping HTTP/1.0\r\n\r\n", b"pong"),
        ),
        _Server(
            *(
                "POSTA_FILTER_RSPAMD_CONTROLLER",
                settings.rspamd_controller,
                11334,
                "rspamd",
                "moves to Junk are learned",
            ),
            "what users move into Junk is not learned: no controller of rspamd is configured",
            *(stat, b" 200 "),
        ),
    )


async def _engines(house: House) -> list[Line]:
    settings, lines = house.settings.filter, []
    asked = []
    for server in _servers(settings):
        if not server.words:
            lines.append(Line("engines", State.NOTE, server.missing, f"set {server.key}"))
        asked += [_ask(server, endpoint(word, server.port, server.key)) for word in server.words]
    lines += await asyncio.gather(*asked)
    for name in settings.optional:
        lines.append(
            Line("engines", State.NOTE, f"{name} is optional: while it does not answer, mail passes without it")
        )
    return lines


async def _ask(server: _Server, where: Endpoint) -> Line:
    try:
        async with asyncio.timeout(_ANSWER_S):
            answer = await _answer(where, server.question)
    except TimeoutError:
        reason = f"no answer within {_ANSWER_S:g} s"
    except OSError as error:
        reason = str(error)
    else:
        if server.answer in answer:
            return Line("engines", State.OK, f"{server.good} by {server.program} at {where}")
        said = answer.split(b"\n", 1)[0].strip(b"\0\r ").decode("utf-8", "replace")[:100]
        reason = f"it says {said!r}"
    do = f"start {server.program} there, or correct {server.key}; until then mail or lessons wait"
    return Line("engines", State.WRONG, f"{server.program} at {where} cannot be used: {reason}", do)


async def _answer(where: Endpoint, question: bytes) -> bytes:
    reader, writer = await connect(where)
    try:
        writer.write(question)
        return await reader.read(65536)
    finally:
        writer.close()


# ---- DNS -------------------------------------------------------------------------------------------------------


async def _dns(house: House) -> list[Line]:
    domains: list[str] = []
    async with house.store.query("doctor.domains") as conn:
        while page := await accounts.list_domains(conn, limit=_PAGE, after=domains[-1] if domains else ""):
            domains += page
    if not domains:
        return [Line("dns", State.WRONG, "no domain is ours: no mail is taken", "`posta domain add <domain>`")]
    lines = []
    for domain in domains:
        if is_reserved(domain) and not house.settings.dns.servers:
            lines.append(Line("dns", State.NOTE, f"{domain} is a name for tests: nobody looks for its records"))
            continue
        async with house.store.query("doctor.dkim") as conn:
            keys = await dkim.list_keys(conn, domain)
        found = await domain_records(house.dns, domain, house.host, keys)
        lines += [Line("dns", State(state), says, do) for state, says, do in found]
    return lines


CHECKS: tuple[tuple[str, Check], ...] = (
    ("store", _store),
    ("bus", _bus),
    ("certificate", _certificate),
    ("engines", _engines),
    ("dns", _dns),
)
