"""Reports on TLS: who asks for them, what they say, and that each goes out once."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any, cast

import pytest

from services.core.bus import Bus
from services.core.directory import Directory
from services.core.dkim.rotation import Rotation
from services.core.dns import Dns
from services.core.ownmail import OwnMail
from services.core.spool import Spool
from services.core.store import accounts, tlsresults
from services.core.store.tlsresults import TlsResult
from services.core.telemetry import Metrics, logger
from services.mxrouter.carriage import Fate, Route
from services.mxrouter.https import Https
from services.mxrouter.mtasts import Policy
from services.mxrouter.reporter import Reporter
from services.mxrouter.resolve import Resolver
from services.mxrouter.security import trusting
from services.mxrouter.tlsreport import readers
from tests.unit.mxrouter.house import House, Script, relaying, until
from tests.unit.mxrouter.script import letter
from tests.unit.mxrouter.web import Web
from tests.unit.mxrouter.world import World

DAY = date(2026, 11, 24)
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
HOST = "mx.posta.test"
STS = Policy("enforce", ("*.far.test",), 86_400.0)
GOOD = TlsResult("far.test", "sts", "mx1.far.test", "successful")
COUNTS = {
    GOOD: 40,
    GOOD._replace(host="mx2.far.test"): 2,
    GOOD._replace(host="mx2.far.test", result="certificate-expired"): 3,
    GOOD._replace(host="", result="sts-policy-fetch-error"): 1,
    GOOD._replace(policy="tlsa", host="mx3.far.test"): 7,
}
ASKS = '_smtp._tls IN TXT "v=TLSRPTv1; rua=mailto:tls@far.test"\n'


@pytest.mark.parametrize(
    ("texts", "mail", "urls"),
    [
        (["v=TLSRPTv1; rua=mailto:a@far.test"], ["a@far.test"], []),
        (["v=tlsrptv1;rua=mailto:a@b.test , mailto:c%2Bd@b.test?s=x;", "v=spf1"], ["a@b.test", "c+d@b.test"], []),
        (["v=TLSRPTv1; rua=https://far.test/v1?x=%2C, mailto:a@far.test,mailto:a@far.test"], ["a@far.test"],
            ["https://far.test/v1?x=%2C"]),
        (["v=TLSRPTv1; rua=https://u:p@far.test/, http://far.test, https://, https:far.test, ftp://far.test"], [], []),
        (["v=TLSRPTv1; rua=mailto:a@far.test", "v=TLSRPTv1; rua=mailto:b@far.test"], [], []),
        (["v=TLSRPTv1; rua=mailto:a@far.test%0D%0ABcc:x@y.test"], [], []),
        (["v=TLSRPTv1; rua=mailto:a b@far.test, mailto:<a@far.test>"], [], []),
        (["v=TLSRPTv1; rua=https://a.test," + ",".join(f"mailto:{n}@a.test" for n in range(99))],
            [f"{n}@a.test" for n in range(4)], ["https://a.test"]),
        (["v=TLSRPTv2; rua=mailto:a@far.test", "v=TLSRPTv1", "", "v=TLSRPTv1; rua"], [], []),
    ],
)  # fmt: skip
def test_who_wants_to_know(texts: list[str], mail: list[str], urls: list[str]) -> None:
    assert readers(texts) == (tuple(mail), tuple(urls))


Make = Callable[..., Reporter]


@pytest.fixture
async def make(house: House, world: World, bus: Bus) -> Make:
    """Reporters as pods have them, at noon of the day after."""
    async with house.store.begin("test") as conn:
        await tlsresults.add(conn, DAY, COUNTS)
    directory = Directory(house.store, bus)
    await directory.start()

    async def sts(domain: str) -> Policy | None:
        return STS if domain == "far.test" else None

    def made(now: datetime = NOON, ca: Path | None = None) -> Reporter:
        log = logger("test")
        mail = OwnMail(Spool(house.store, bus, log), directory)
        told = {"host": HOST, "port": 25, "clock": lambda: now}
        https = Https(Resolver(world.dns, ()), trusting(ca), timeout_s=3.0, private=True)
        return Reporter(house.store, mail, world.dns, https, sts, log, Metrics("test"), **told)

    return made


def opened(octets: bytes) -> tuple[EmailMessage, dict[str, Any]]:
    """The message, and the report that is in it."""
    message = cast(EmailMessage, message_from_bytes(octets, policy=policy.default))
    note, report = message.iter_parts()
    assert (note.get_content_type(), report.get_content_type()) == ("text/plain", "application/tlsrpt+gzip")
    return message, json.loads(gzip.decompress(report.get_content()))


async def test_a_report_says_what_was_counted_and_leaves_signed(
    house: House, world: World, bus: Bus, make: Make
) -> None:
    world.zone("far.test", ASKS + "_25._tcp.mx3 IN TLSA 3 1 1 " + "ab" * 32 + "\n")
    async with house.store.begin("test") as conn:
        await accounts.create_domain(conn, "posta.test")
    rotation = Rotation(house.store, Dns, None)
    await rotation.rotate("posta.test")
    await rotation.activate("posta.test", force=True)
    carrier = Script()
    async with relaying(house, bus, carrier):
        await make().look()
        await until(lambda: carrier.carried)

    (route, sent), = carrier.carried  # fmt: skip
    assert (route.domain, [a.address for a in sent.addressees], sent.sender) == ("far.test", ["tls@far.test"], "")
    assert sent.octets.count(b"DKIM-Signature:") == 2
    assert b"d=posta.test" in sent.octets
    message, report = opened(sent.octets)
    assert (message["TLS-Report-Domain"], message["TLS-Report-Submitter"]) == ("far.test", HOST)
    assert message["Subject"] == f"Report Domain: far.test Submitter: {HOST} Report-ID: <{report['report-id']}>"
    assert report["date-range"] == {
        "start-datetime": "2026-11-24T00:00:00Z",
        "end-datetime": "2026-11-24T23:59:59Z",
    }
    sts, tlsa = report["policies"]
    assert sts["policy"]["policy-string"] == ["version: STSv1", "mode: enforce", "mx: *.far.test", "max_age: 86400"]
    assert sts["policy"]["mx-host"] == ["mx1.far.test", "mx2.far.test"]
    assert sts["summary"] == {"total-successful-session-count": 42, "total-failure-session-count": 4}
    assert sts["failure-details"] == [
        {"result-type": "sts-policy-fetch-error", "failed-session-count": 1},
        {
            "result-type": "certificate-expired",
            "failed-session-count": 3,
            "receiving-mx-hostname": "mx2.far.test",
        },
    ]
    assert tlsa["policy"]["policy-string"] == ["3 1 1 " + "ab" * 32]
    assert tlsa["summary"] == {"total-successful-session-count": 7, "total-failure-session-count": 0}


async def test_one_report_a_day_whoever_looks_and_however_often(house: House, world: World, make: Make) -> None:
    world.zone("far.test", ASKS)
    await asyncio.gather(*(make().look() for _ in range(4)))
    await make().look()
    assert len(await house.rows("SELECT 1 FROM spool")) == 1

    # Ten minutes into the next day some pods have yet to say what they saw.
    async with house.store.begin("test") as conn:
        await tlsresults.add(conn, DAY + timedelta(days=1), {GOOD: 1})
    await make(datetime(2026, 11, 26, 0, 10, tzinfo=UTC)).look()
    assert len(await house.rows("SELECT 1 FROM spool")) == 1
    await make(datetime(2026, 11, 26, 0, 15, tzinfo=UTC)).look()
    assert len(await house.rows("SELECT 1 FROM spool")) == 2


async def test_who_does_not_ask_is_not_told_and_not_asked_again(house: House, world: World, make: Make) -> None:
    world.zone("far.test", "@ IN A 127.0.0.2\n")
    await make().look()
    assert await house.rows("SELECT 1 FROM spool") == []
    assert await house.rows("SELECT domain, spool_id FROM tls_reports") == [("far.test", None)]


async def test_a_dns_that_is_silent_puts_the_report_off(house: House, world: World, make: Make) -> None:
    world.zone("far.test", ";posta: servfail _smtp._tls\n" + ASKS)
    await make().look()
    assert await house.rows("SELECT 1 FROM tls_reports") == []
    world.zone("far.test", ASKS)
    await make().look()
    assert len(await house.rows("SELECT 1 FROM spool")) == 1


def asks_for(*urls: str) -> str:
    return f'_smtp._tls IN TXT "v=TLSRPTv1; rua={",".join(urls)}"\nreports IN A 127.0.0.4\nelsewhere IN A 127.0.0.4\n'


async def done(house: House) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await house.rows("SELECT domain, spool_id FROM tls_reports")]


async def test_a_report_is_posted(house: House, world: World, make: Make) -> None:
    files, tls = world.certificate("reports.far.test")
    web = await Web.at("127.0.0.4", tls, world)
    web.status = "201 Created"
    world.zone("far.test", asks_for(f"https://reports.far.test:{web.port}/v1/tls?of=far"))

    await asyncio.gather(*(make(ca=files.ca).look() for _ in range(4)))
    await make(ca=files.ca).look()

    (asked,) = web.asked  # once, whoever looks
    assert asked.startswith("POST /v1/tls?of=far HTTP/1.1\r\n")
    assert f"\r\nHost: reports.far.test:{web.port}\r\n" in asked
    assert "\r\nContent-Type: application/tlsrpt+gzip\r\n" in asked
    report = json.loads(gzip.decompress(web.bodies[0]))
    assert [policy["policy"]["policy-type"] for policy in report["policies"]] == ["sts", "tlsa"]
    assert await done(house) == [("far.test", None)]


async def test_who_names_several_is_told_by_each_that_takes_it(house: House, world: World, make: Make) -> None:
    files, tls = world.certificate("reports.far.test")
    web = await Web.at("127.0.0.4", tls, world)
    good = f"https://reports.far.test:{web.port}/"
    world.zone("far.test", asks_for("https://nowhere.far.test/", good, "mailto:tls@far.test", "https://far.test:x/"))

    await make(ca=files.ca).look()

    assert len(web.asked) == 1
    assert len(await house.rows("SELECT 1 FROM spool")) == 1
    assert len(await done(house)) == 1


@pytest.mark.parametrize("flaw", ["503 Service Unavailable", "302 Found", "silent", "somebody else", "gone"])
async def test_a_report_that_nobody_takes_is_put_off(house: House, world: World, make: Make, flaw: str) -> None:
    files, tls = world.certificate("reports.far.test")
    web = await Web.at("127.0.0.4", tls, world)
    name = "elsewhere" if flaw == "somebody else" else "reports"
    world.zone("far.test", asks_for(f"https://{name}.far.test:{1 if flaw == 'gone' else web.port}/"))
    web.status = flaw if flaw[0].isdigit() else "200 OK"
    web.silent = flaw == "silent"

    await make(ca=files.ca).look()

    assert await done(house) == []
    assert len(web.asked) == (0 if flaw in ("somebody else", "gone") else 1), "a redirect is not followed"
    web.status, web.silent = "200 OK", False
    world.zone("far.test", asks_for(f"https://reports.far.test:{web.port}/"))
    await make(ca=files.ca).look()
    assert await done(house) == [("far.test", None)]


@pytest.mark.parametrize("waived", [True, False])
async def test_tls_that_fails_does_not_stop_who_says_that_it_is_not_required(world: World, waived: bool) -> None:
    """RFC 8689 5, RFC 8460 5.3; and such mail is not counted, or a report would be about the report before."""
    _, tls = world.certificate("other.test")
    await world.host("127.0.0.2", lambda caller: caller.take(tls=tls))
    record = f"_{world.port}._tcp.mx IN TLSA 3 1 1 {'00' * 32}\n"
    world.zone("remote.test", ";posta: signed\n@ IN MX 10 mx\nmx IN A 127.0.0.2\n" + record)
    header = b"TLS-Required: No\r\n" if waived else b"X-Note: TLS-Required: No\r\n"

    octets = header + b"Subject: x\r\n\r\nTLS-Required: No\r\n"
    (outcome,) = await world.client().carry(Route("remote.test"), letter(octets=octets))

    assert outcome.fate is (Fate.SENT if waived else Fate.LATER)
    assert world.results == ([] if waived else [("tlsa", "validation-failure")])


async def test_requiretls_counts_for_more(world: World) -> None:
    await world.host("127.0.0.2", lambda caller: caller.take())
    world.zone("remote.test", "@ IN MX 10 mx\nmx IN A 127.0.0.2\n")
    asked = letter(octets=b"TLS-Required: No\r\n\r\n", requiretls=True)

    (outcome,) = await world.client().carry(Route("remote.test"), asked)

    assert (outcome.fate, outcome.enhanced) == (Fate.FAILED, "5.7.30")
