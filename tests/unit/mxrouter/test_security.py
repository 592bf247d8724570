"""What hosts have to prove, and what becomes of mail when they do not: DANE, MTA-STS, REQUIRETLS, smarthosts."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from services.mxrouter.carriage import Fate, Outcome, Route, Smarthost
from tests.unit.mxrouter.script import letter
from tests.unit.mxrouter.web import Web
from tests.unit.mxrouter.world import Caller, World

REMOTE = Route("remote.test")
ZONE = "@ IN MX 10 mx\nmx IN A 127.0.0.2\nmta-sts IN A 127.0.0.4\n"
SIGNED = ";posta: signed\n" + ZONE
MX = "mx.remote.test"


def spki(path: Path) -> str:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    octets = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(octets).hexdigest()


def tlsa(world: World, *records: str, name: str = MX) -> str:
    return "".join(f"_{world.port}._tcp.{name}. IN TLSA {record}\n" for record in records)


async def carry(world: World, **settings: object) -> Outcome:
    (outcome,) = await world.client(**settings).carry(REMOTE, letter())  # type: ignore[arg-type]
    return outcome


async def test_dane_knows_the_certificate(world: World) -> None:
    files, tls = world.certificate("some.other.name")
    await world.host("127.0.0.2", lambda caller: caller.take(tls=tls))
    world.zone("remote.test", SIGNED + tlsa(world, "3 1 1 " + spki(files.cert)))

    assert (await carry(world)).fate is Fate.SENT
    assert world.results == [("tlsa", "successful")]


async def test_dane_knows_the_ca(world: World) -> None:
    files, tls = world.certificate(MX)
    await world.host("127.0.0.2", lambda caller: caller.take(tls=tls))
    world.zone("remote.test", SIGNED + tlsa(world, "2 1 1 " + spki(files.ca)))

    assert (await carry(world)).fate is Fate.SENT
    assert world.results == [("tlsa", "successful")]


@pytest.mark.parametrize(
    ("names", "record", "result"),
    [
        ((MX,), "3 1 1 " + "00" * 32, "validation-failure"),
        ((MX,), "2 1 1 " + "00" * 32, "validation-failure"),
        (("other.test",), "2 1 1 ca", "certificate-host-mismatch"),
    ],
)
async def test_a_certificate_that_dane_does_not_know(
    world: World, names: tuple[str, ...], record: str, result: str
) -> None:
    files, tls = world.certificate(*names)
    await world.host("127.0.0.2", lambda caller: caller.take(tls=tls))
    world.zone("remote.test", SIGNED + tlsa(world, record.replace("ca", spki(files.ca))))

    outcome = await carry(world)

    assert (outcome.fate, outcome.enhanced, outcome.unreachable) == (Fate.LATER, "4.7.5", True)
    assert world.results == [("tlsa", result)]
    assert not any("MAIL" in line for _, caller in world.calls for line in caller.lines)


@pytest.mark.parametrize(
    "answers", [{"EHLO": "250 no extensions"}, {"STARTTLS": "454 not now"}, {"STARTTLS": "220 go\r\n?"}]
)
async def test_dane_does_not_go_without_tls(world: World, answers: dict[str, str]) -> None:
    _, tls = world.certificate(MX)
    await world.host("127.0.0.2", lambda caller: caller.take(tls=tls, **answers))
    world.zone("remote.test", SIGNED + tlsa(world, "3 1 1 " + "00" * 32))

    assert (await carry(world)).enhanced == "4.7.5"
    assert not any("MAIL" in line for _, caller in world.calls for line in caller.lines)


async def test_dane_records_of_other_kinds_ask_for_tls_alone(world: World) -> None:
    _, tls = world.certificate("some.other.name")
    await world.host("127.0.0.2", lambda caller: caller.take(tls=tls))
    world.zone("remote.test", SIGNED + tlsa(world, "1 1 1 " + "00" * 32, "3 7 1 " + "00" * 32))

    assert (await carry(world)).fate is Fate.SENT
    assert world.results == [("tlsa", "successful"), ("tlsa", "tlsa-invalid")]


@pytest.mark.parametrize("zone", [ZONE, SIGNED.replace("10 mx", "10 mx.unsigned.test.")])
async def test_dane_believes_nothing_that_dnssec_does_not_prove(world: World, zone: str) -> None:
    _, tls = world.certificate(MX)
    await world.host("127.0.0.2", lambda caller: caller.take(tls=tls))
    world.zone("unsigned.test", "mx IN CNAME host\nhost IN A 127.0.0.2\n")
    world.zone("remote.test", zone + tlsa(world, "3 1 1 " + "00" * 32))

    assert (await carry(world)).fate is Fate.SENT
    assert world.results == [("no-policy-found", "successful")]


@pytest.mark.parametrize(
    ("signed", "at", "policy"),
    [
        (True, ("host.other.test",), "tlsa"),
        (True, ("host.other.test", MX), "tlsa"),
        (True, (MX,), "tlsa"),
        (False, (MX,), "tlsa"),
        (False, ("host.other.test",), "no-policy-found"),
    ],
)
async def test_a_host_that_is_an_alias(world: World, signed: bool, at: tuple[str, ...], policy: str) -> None:
    """RFC 7672 2.2.2: records are looked for where the alias leads, if all is signed, then at the alias itself."""
    files, tls = world.certificate(at[0])
    await world.host("127.0.0.2", lambda caller: caller.take(tls=tls))
    wrong = "3 1 1 " + "00" * 32
    records = tlsa(world, "2 1 1 " + spki(files.ca), name=at[0]) + tlsa(
        world, wrong, name=at[1] if at[1:] else "x.test"
    )
    ours = "".join(line + "\n" for line in records.splitlines() if ".remote.test." in line)
    theirs = "".join(line + "\n" for line in records.splitlines() if ".other.test." in line)
    world.zone("other.test", (";posta: signed\n" if signed else "") + "host IN A 127.0.0.2\n" + theirs)
    world.zone("remote.test", SIGNED.replace("mx IN A 127.0.0.2", "mx IN CNAME host.other.test.") + ours)

    assert (await carry(world)).fate is Fate.SENT
    assert world.results == [(policy, "successful")]


async def test_a_tlsa_question_that_fails_is_not_a_no(world: World) -> None:
    await world.host("127.0.0.2", lambda caller: caller.take())
    world.zone("remote.test", f";posta: servfail _{world.port}._tcp.mx\n" + SIGNED)

    outcome = await carry(world)

    assert (outcome.fate, outcome.enhanced) == (Fate.LATER, "4.7.5")
    assert world.called == []
    assert world.results == [("tlsa", "dnssec-invalid")]


# ---- MTA-STS -------------------------------------------------------------------------------------------------------


async def published(world: World, tls: ssl.SSLContext, policy: str, more: str = "") -> Web:
    """`policy` is what remote.test asks for."""
    web = await Web.at("127.0.0.4", tls, world)
    web.body = "version: STSv1\r\n" + policy + "max_age: 86400\r\n"
    world.zone("remote.test", ZONE + more + '_mta-sts IN TXT "v=STSv1; id=20261125T1;"\n')
    return web


ENFORCE = "mode: enforce\r\nmx: mx.remote.test\r\n"


async def test_a_policy_that_the_host_keeps(world: World) -> None:
    files, tls = world.certificate(MX, "mta-sts.remote.test")
    await world.host("127.0.0.2", lambda caller: caller.take(tls=tls))
    web = await published(world, tls, ENFORCE)
    client = world.client(ca=files.ca, sts_port=web.port, idle_s=0)

    for _ in range(3):
        assert (await client.carry(REMOTE, letter()))[0].fate is Fate.SENT

    assert world.results == [("sts", "successful")]
    assert [asked.split("\r\n")[0] for asked in web.asked] == ["GET /.well-known/mta-sts.txt HTTP/1.1"], "once"
    assert f"\r\nHost: mta-sts.remote.test:{web.port}\r\n" in web.asked[0]


def broken_host(world: World, mode: str) -> tuple[Callable[[Caller], object], str, str]:
    _, other = world.certificate("other.test")
    if mode == "untrusted":
        return (lambda caller: caller.take(tls=other)), ENFORCE, "certificate-not-trusted"
    if mode == "clear":
        return (lambda caller: caller.take("250 nothing")), ENFORCE, "starttls-not-supported"
    return (
        (lambda caller: caller.take(tls=other)),
        ENFORCE.replace("mx.remote", "*.hosts.remote"),
        "certificate-host-mismatch",
    )


@pytest.mark.parametrize("flaw", ["untrusted", "clear", "unlisted"])
async def test_a_policy_that_the_host_does_not_keep(world: World, flaw: str) -> None:
    script, policy, result = broken_host(world, flaw)
    await world.host("127.0.0.2", script)  # type: ignore[arg-type]
    files, tls = world.certificate(MX, "mta-sts.remote.test")
    web = await published(world, tls, policy)

    outcome = await carry(world, ca=files.ca, sts_port=web.port)

    assert (outcome.fate, outcome.enhanced, outcome.unreachable) == (Fate.LATER, "4.7.5", True)
    assert world.results == [("sts", result)]
    assert not any("MAIL" in line for _, caller in world.calls for line in caller.lines)


@pytest.mark.parametrize("flaw", ["untrusted", "clear", "unlisted"])
async def test_a_policy_in_testing_only_counts(world: World, flaw: str) -> None:
    script, policy, result = broken_host(world, flaw)
    await world.host("127.0.0.2", script)  # type: ignore[arg-type]
    files, tls = world.certificate(MX, "mta-sts.remote.test")
    web = await published(world, tls, policy.replace("enforce", "testing"))

    assert (await carry(world, ca=files.ca, sts_port=web.port)).fate is Fate.SENT
    assert ("sts", result) in world.results


@pytest.mark.parametrize(
    ("status", "policy", "result"),
    [
        ("404 Not Found", ENFORCE, "sts-policy-fetch-error"),
        ("301 Moved", ENFORCE, "sts-policy-fetch-error"),
        ("200 OK", "mode: enforce\r\n", "sts-policy-invalid"),
        ("200 OK", ENFORCE + "x" * 70_000 + ": y\r\n", "sts-policy-invalid"),
    ],
)
async def test_a_policy_that_cannot_be_had(world: World, status: str, policy: str, result: str) -> None:
    files, tls = world.certificate("mta-sts.remote.test")
    await world.host("127.0.0.2", lambda caller: caller.take("250 nothing"))
    web = await published(world, tls, policy)
    web.status = status
    client = world.client(ca=files.ca, sts_port=web.port)

    for _ in range(2):
        assert (await client.carry(REMOTE, letter()))[0].fate is Fate.SENT
    assert world.failures == [("remote.test", result)], "once, not with each letter"


async def test_a_policy_from_somebody_else(world: World) -> None:
    files, _ = world.certificate("mta-sts.remote.test")
    _, tls = world.certificate("mx.evil.test")
    await world.host("127.0.0.2", lambda caller: caller.take("250 nothing"))
    web = await published(world, tls, ENFORCE)

    assert (await carry(world, ca=files.ca, sts_port=web.port)).fate is Fate.SENT
    assert world.failures == [("remote.test", "sts-webpki-invalid")]


async def test_a_policy_holds_when_its_record_and_server_are_gone(world: World) -> None:
    _, other = world.certificate("other.test")
    files, tls = world.certificate(MX, "mta-sts.remote.test")
    await world.host("127.0.0.2", lambda caller: caller.take(tls=other))
    web = await published(world, tls, ENFORCE)
    client = world.client(ca=files.ca, sts_port=web.port)
    assert (await client.carry(REMOTE, letter()))[0].enhanced == "4.7.5"

    for record in ('_mta-sts IN TXT "v=STSv1; id=new;"\n', ""):
        web.status = "503 Service Unavailable"
        world.zone("remote.test", ZONE + record)
        assert (await client.carry(REMOTE, letter()))[0].enhanced == "4.7.5"
    assert len(web.asked) == 2


async def test_dane_wins_over_a_policy(world: World) -> None:
    files, tls = world.certificate("mta-sts.remote.test")
    unknown, other = world.certificate("other.test")
    await world.host("127.0.0.2", lambda caller: caller.take(tls=other))
    web = await published(world, tls, ENFORCE, ";posta: signed\n" + tlsa(world, "3 1 1 " + spki(unknown.cert)))

    assert (await carry(world, ca=files.ca, sts_port=web.port)).fate is Fate.SENT
    assert world.results == [("tlsa", "successful")]


# ---- REQUIRETLS ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "keyword", "known", "fate", "enhanced"),
    [
        (SIGNED, "REQUIRETLS", True, Fate.SENT, "2.0.0"),
        (SIGNED, "DSN", True, Fate.FAILED, "5.7.30"),
        (ZONE, "REQUIRETLS", True, Fate.FAILED, "5.7.30"),
        (SIGNED, "REQUIRETLS", False, Fate.LATER, "4.7.5"),
    ],
)
async def test_requiretls(world: World, zone: str, keyword: str, known: bool, fate: Fate, enhanced: str) -> None:
    files, tls = world.certificate(MX)
    ehlo = f"250-x\r\n250-STARTTLS\r\n250 {keyword}"
    await world.host("127.0.0.2", lambda caller: caller.take(ehlo, tls))
    world.zone("remote.test", zone)

    client = world.client(ca=files.ca if known else None)
    (outcome,) = await client.carry(REMOTE, letter(requiretls=True))

    assert (outcome.fate, outcome.enhanced) == (fate, enhanced)


async def test_a_kept_connection_must_be_as_safe_as_the_letter_asks(world: World) -> None:
    files, tls = world.certificate(MX)
    await world.host("127.0.0.2", lambda caller: caller.take("250-x\r\n250-STARTTLS\r\n250 REQUIRETLS", tls))
    world.zone("remote.test", SIGNED)
    client = world.client(ca=files.ca)

    for strict in (False, True, True, False):
        assert (await client.carry(REMOTE, letter(requiretls=strict)))[0].fate is Fate.SENT

    assert len(world.calls) == 2


# ---- smarthosts ----------------------------------------------------------------------------------------------------

OFFER = "250-x\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN"


async def submit(world: World, ca: Path | None, implicit_tls: bool = False, host: str = MX) -> Outcome:
    world.zone("remote.test", ZONE)
    smarthost = Smarthost(host, world.port, implicit_tls, "bob", "geheim")
    (outcome,) = await world.client(ca=ca).carry(Route("anywhere.test", smarthost), letter())
    return outcome


async def test_a_smarthost_with_a_login(world: World) -> None:
    files, tls = world.certificate(MX)
    await world.host("127.0.0.2", lambda caller: caller.take(OFFER, tls, AUTH="235 welcome"))

    outcome = await submit(world, files.ca)

    assert (outcome.fate, outcome.host) == (Fate.SENT, MX)
    assert world.calls[0][1].lines[3] == "AUTH PLAIN AGJvYgBnZWhlaW0="


async def test_a_smarthost_over_implicit_tls(world: World) -> None:
    files, tls = world.certificate(MX)
    await world.host("127.0.0.2", lambda caller: caller.take("250-x\r\n250 AUTH LOGIN", AUTH="235 welcome"), tls)

    assert (await submit(world, files.ca, implicit_tls=True)).fate is Fate.SENT
    assert world.calls[0][1].lines[0] == "EHLO mx.posta.test"


@pytest.mark.parametrize("names", [(MX,), ("127.0.0.2",)])
async def test_the_password_is_for_nobody_else(world: World, names: tuple[str, ...]) -> None:
    known, _ = world.certificate("known.test")
    _, tls = world.certificate(*names)
    await world.host("127.0.0.2", lambda caller: caller.take(OFFER, tls, AUTH="235 welcome"))

    assert (await submit(world, known.ca)).enhanced == "4.7.5"
    assert not any("AUTH" in line for _, caller in world.calls for line in caller.lines)


async def test_the_password_is_not_for_the_clear(world: World) -> None:
    await world.host("127.0.0.2", lambda caller: caller.take("250-x\r\n250 AUTH PLAIN", AUTH="235 welcome"))

    assert (await submit(world, None)).enhanced == "4.7.5"
    assert not any("AUTH" in line for _, caller in world.calls for line in caller.lines)


async def test_a_wrong_password_bounces_nothing(world: World) -> None:
    files, tls = world.certificate(MX)
    await world.host("127.0.0.2", lambda caller: caller.take(OFFER, tls, AUTH="535 5.7.8 wrong"))

    outcome = await submit(world, files.ca)

    assert (outcome.fate, outcome.code, outcome.enhanced, outcome.unreachable) == (Fate.LATER, 535, "4.7.8", True)


async def test_a_smarthost_that_does_not_exist_bounces_nothing(world: World) -> None:
    outcome = await submit(world, None, host="nowhere.remote.test")

    assert (outcome.fate, outcome.enhanced, outcome.unreachable) == (Fate.LATER, "4.3.5", True)
