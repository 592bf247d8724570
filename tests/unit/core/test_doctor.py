"""The doctor on a real store and bus, and with each of them away."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest

from services.core.bus import Bus
from services.core.dns import Dns
from services.core.doctor import CHECKS, House, Line, State, examine
from services.core.settings import Dns as DnsSettings
from services.core.settings import Filter, Settings, Tls
from services.core.store import accounts
from services.core.store.engine import Store
from services.core.tls import ensure_dev_certificate
from tests.unit.core.test_records import GOOD, HOST, Zone

Server = Callable[[bytes], Awaitable[str]]


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A function that makes a server which answers everything so; the word for it in a setting."""
    made: list[asyncio.Server] = []

    async def make(answer: bytes) -> str:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1000)
            writer.write(answer)
            await writer.drain()
            writer.close()

        made.append(await asyncio.start_server(serve, "127.0.0.1", 0))
        return f"127.0.0.1:{made[-1].sockets[0].getsockname()[1]}"

    yield make
    for each in made:
        each.close()


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    files = ensure_dev_certificate(tmp_path, ["localhost", "*.posta.example"])
    return Tls(cert=files.cert, key=files.key)


def house(store: Store, bus: Bus, settings: Settings, at: datetime | None = None) -> House:
    return House(settings, store, bus, cast(Dns, Zone(GOOD)), at or datetime.now(UTC))


async def about(check: str, ward: House) -> list[Line]:
    return [line for line in await examine(ward) if line.check == check]


async def test_a_platform_that_is_well(store: Store, bus: Bus, tls: Tls, server: Server) -> None:
    async with store.begin("test") as conn:
        await accounts.create_domain(conn, "here.org")
        await accounts.create_domain(conn, "posta.test")
    settings = Settings(
        hostname=HOST,
        tls=tls,
        filter=Filter(
            clamd=(await server(b"ClamAV 1.4.6/27000/today\0"),),
            rspamd=(await server(b"HTTP/1.0 200 OK\r\n\r\npong\r\n"),),
            rspamd_controller=(await server(b"HTTP/1.1 200 OK\r\n\r\n{}"),),
        ),
    )

    lines = await examine(house(store, bus, settings))

    states = {check: [line.state for line in lines if line.check == check] for check, _ in CHECKS}
    # What the test database is allowed to be careless about is not careless by default.
    assert [line for line in lines if line.state is State.WRONG and " is off: " not in line.says] == []
    assert states["engines"] == [State.OK] * 3
    # MX, SPF, DMARC, no key that signs; and a domain that nobody can look up.
    assert states["dns"] == [State.OK, State.OK, State.OK, State.NOTE, State.NOTE]
    assert states["bus"] == states["certificate"] == [State.OK]


async def test_what_is_not_examined_is_said(store: Store, bus: Bus) -> None:
    found = await about("engines", house(store, bus, Settings(filter=Filter(optional=("policy",)))))
    assert [(line.state, line.says) for line in found] == [
        (State.NOTE, "viruses are not examined beyond a few built-in signatures: no clamd is configured"),
        (State.NOTE, "spam is not examined: no rspamd is configured"),
        (State.NOTE, "what users move into Junk is not learned: no controller of rspamd is configured"),
        (State.NOTE, "policy is optional: while it does not answer, mail passes without it"),
    ]


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 401 Unauthorized\r\n\r\n", b"220 hello\r\n"])
async def test_an_engine_that_is_no_engine(store: Store, bus: Bus, server: Server, answer: bytes) -> None:
    word = await server(answer)
    settings = Settings(filter=Filter(clamd=(word,), rspamd=(word,), rspamd_controller=(word, "127.0.0.1:1")))
    found = await about("engines", house(store, bus, settings))
    assert [line.state for line in found] == [State.WRONG] * 4
    assert all("cannot be used: " in line.says and line.do for line in found)


async def test_certificates(store: Store, bus: Bus, tls: Tls, tmp_path: Path) -> None:
    async def said(settings: Settings, days: float = 0) -> list[tuple[State, str]]:
        ward = house(store, bus, settings, datetime.now(UTC) + timedelta(days=days))
        return [(line.state, line.says) for line in await about("certificate", ward)]

    assert (await said(Settings()))[0][1].startswith("no certificate is set")
    assert (await said(Settings(tls=tls)))[0][0] is State.OK
    assert (await said(Settings(tls=tls, hostname="mail.posta.example")))[-1][0] is State.OK
    assert (await said(Settings(tls=tls, hostname="a.b.posta.example")))[-1] == (
        State.WRONG,
        "it is not good for a.b.posta.example",
    )
    assert "ends in" in (await said(Settings(tls=tls), 390))[0][1]
    assert "it ended on" in (await said(Settings(tls=tls), 400))[0][1]
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    assert (await said(Settings(tls=Tls(cert=broken, key=broken))))[0][0] is State.WRONG


async def test_a_store_and_a_bus_that_are_away() -> None:
    store, bus = Store("postgresql://posta@127.0.0.1:1/nowhere"), await Bus.connect("nats://127.0.0.1:1", "test")
    lines = await examine(house(store, bus, Settings()))
    wrong = {line.check: line.says for line in lines if line.state is State.WRONG}
    assert "Postgres does not answer" in wrong["store"]
    assert "NATS cannot be used" in wrong["bus"]
    assert "could not be checked" in wrong["dns"]
    await bus.close()
    await store.close()


async def test_no_domain_is_wrong(store: Store, bus: Bus) -> None:
    (line,) = await about("dns", house(store, bus, Settings()))
    assert (line.state, line.do) == (State.WRONG, "`posta domain add <domain>`")


async def test_names_for_tests_are_looked_up_where_a_resolver_is_set(store: Store, bus: Bus) -> None:
    async with store.begin("test") as conn:
        await accounts.create_domain(conn, "posta.test")
    sought, unsigned = await about("dns", house(store, bus, Settings(dns=DnsSettings(servers=("127.0.0.1:53",)))))
    assert "posta.test does not exist" in sought.says
    assert unsigned.do.startswith("`posta domain dkim posta.test` makes a pair")
