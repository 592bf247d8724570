"""The engine on whole messages: what is found, what is written, what becomes of the message."""

import asyncio
from collections.abc import Mapping

import dkim as dkimpy
import pytest

from services.contracts.v1 import mail_pb2 as pb
from services.core.dns import Answer
from services.core.settings import Filter
from services.core.telemetry import Metrics, logger
from services.filter.engines import auth, configured
from services.filter.examined import Examined
from services.filter.origin.lookup import Names
from services.filter.pipeline import Pipeline
from services.filter.verdict import RULES, Action, Policy, decide
from tests.unit.filter.origin.zone import DEAD, Signer, Zone

BANK, LIST = Signer("bank.example"), Signer("lists.example.org")
LETTER = b"From: Bank <info@bank.example>\r\nTo: bob@posta.test\r\nSubject: your account\r\n\r\nDear Bob.\r\n"
SERVER, STRANGER = "192.0.2.1", "198.51.100.9"


def zone(policy: str = "p=reject", **more: list[str]) -> dict[str, list[str]]:
    return {
        "bank.example": [f"TXT v=spf1 ip4:{SERVER} -all"],
        "_dmarc.bank.example": [f"TXT v=DMARC1; {policy}"],
        **BANK.zone(),
        **LIST.zone(),
        **{name.replace("_at_", "."): records for name, records in more.items()},
    }


def request(address: str, sender: str = "info@bank.example", **more: object) -> pb.ScanRequest:
    facts = {"address": address, "helo": "mx.bank.example", "door": "mxrouter", "host": "mx.posta.test"} | more
    return pb.ScanRequest(blob_id=b"\0" * 32, sender=sender, client=pb.ClientFacts(**facts))


async def verdict(
    octets: bytes, asked: pb.ScanRequest, names: Names | Mapping[str, list[str]], **settings: object
) -> pb.Verdict:
    wanted = Filter(**settings)
    dns = Zone(names) if isinstance(names, Mapping) else names
    policy = Policy(rules={**RULES, **auth.rules(wanted)})
    engines = [engine for engine in configured(wanted, names=dns) if engine.name == "auth"]
    pipeline = Pipeline(engines, policy, logger("filter"), Metrics("filter"))
    deadline = asyncio.get_running_loop().time() + 20
    return decide(await pipeline.run(Examined(asked, octets), deadline), policy)


def symbols(made: pb.Verdict) -> list[str]:
    return [finding.symbol for finding in made.findings]


def signed(octets: bytes = LETTER) -> bytes:
    return bytes(dkimpy.sign(octets, b"rsa", b"bank.example", BANK.rsa)) + octets


def without_b(headers: bytes) -> bytes:
    """header.b is of a key made for this run."""
    start = headers.index(b" header.b=")
    return headers[:start] + headers[headers.index(b";", start) :]


async def test_what_a_good_message_is_told() -> None:
    made = await verdict(signed(), request(SERVER, rdns="out.bank.example", iprev="pass"), zone())
    assert made.action == Action.ACCEPT
    assert symbols(made) == ["SPF_PASS", "DKIM_PASS", "DMARC_PASS"]
    assert without_b(made.headers) == (
        b"Authentication-Results: mx.posta.test;\r\n"
        b"\tspf=pass (bank.example permits 192.0.2.1) smtp.mailfrom=info@bank.example;\r\n"
        b"\tdkim=pass header.d=bank.example header.s=rsa header.a=rsa-sha256;\r\n"
        b"\tdmarc=pass (p=reject) header.from=bank.example;\r\n"
        b"\tiprev=pass (out.bank.example) policy.iprev=192.0.2.1\r\n"
        b"Received-SPF: pass (mx.posta.test: bank.example permits 192.0.2.1)\r\n"
        b'\tclient-ip=192.0.2.1; envelope-from="info@bank.example"; helo=mx.bank.example; identity=mailfrom;'
        b' receiver=mx.posta.test; mechanism="ip4:192.0.2.1/32"\r\n'
    )


@pytest.mark.parametrize(
    ("octets", "address", "sender"),
    [
        (signed(), STRANGER, "bounce@elsewhere.example"),  # forwarded as it was: DKIM
        (LETTER, SERVER, "info@bank.example"),  # not signed: SPF
        (LETTER.replace(b"Dear", b"Cheer"), SERVER, "info@bank.example"),
    ],
)
async def test_one_proof_is_enough(octets: bytes, address: str, sender: str) -> None:
    made = await verdict(octets, request(address, sender), zone())
    assert (made.action, symbols(made)[-1]) == (Action.ACCEPT, "DMARC_PASS")


async def test_a_forger_is_refused_and_told_whose_policy_it_is() -> None:
    for sender in ("info@bank.example", "crook@crook.example", ""):
        made = await verdict(LETTER, request(STRANGER, sender), zone(crook_at_example=["TXT v=spf1 +all"]))
        assert (made.action, made.code, made.enhanced) == (Action.REJECT, 550, "5.7.1")
        assert made.text == "Message refused by the DMARC policy of bank.example"
        assert made.headers == b""


@pytest.mark.parametrize(
    ("policy", "settings", "action"),
    [
        ("p=quarantine", {}, Action.JUNK),
        ("p=quarantine", {"dmarc_quarantine": "quarantine"}, Action.QUARANTINE),
        ("p=quarantine", {"dmarc_quarantine": "accept"}, Action.ACCEPT),
        ("p=none", {}, Action.ACCEPT),
        ("p=reject", {"dmarc_reject": "junk"}, Action.JUNK),
        ("p=reject", {"dmarc_reject": "quarantine"}, Action.QUARANTINE),
        ("p=reject; pct=0", {}, Action.JUNK),
        ("p=quarantine; pct=0", {}, Action.ACCEPT),
        ("p=none", {"spf_fail": "reject"}, Action.REJECT),
        ("p=none", {"spf_fail": "junk"}, Action.JUNK),
    ],
)
async def test_what_a_policy_asks_for(policy: str, settings: dict[str, object], action: int) -> None:
    made = await verdict(LETTER, request(STRANGER), zone(policy), **settings)
    assert made.action == action
    # Who is held for review is told why, as who is refused.
    assert bool(made.code and made.text) is (action in (Action.REJECT, Action.QUARANTINE))


async def test_the_null_sender_is_the_helo_name() -> None:
    records = zone(mx_at_bank_at_example=[f"TXT v=spf1 ip4:{SERVER} -all"])
    made = await verdict(LETTER, request(SERVER, ""), records)
    assert symbols(made) == ["SPF_PASS", "DMARC_PASS"]
    assert b" smtp.helo=mx.bank.example;" in made.headers
    assert b"identity=helo" in made.headers
    assert (await verdict(LETTER, request(STRANGER, ""), records)).action == Action.REJECT


@pytest.mark.parametrize(
    "more", [{"door": "submission"}, {"login": "bob@posta.test"}, {"address": "127.0.0.1"}, {"address": "::1"}]
)
async def test_our_own_are_not_asked(more: dict[str, object]) -> None:
    names = Zone(zone())
    made = await verdict(LETTER, request(**({"address": STRANGER} | more)), names)  # type: ignore[arg-type]
    assert (made.action, list(made.findings), names.asked) == (Action.ACCEPT, [], [])


async def test_exempt_networks_are_a_setting() -> None:
    assert (await verdict(LETTER, request(STRANGER), zone(), auth_exempt=["198.51.100.0/24"])).action == Action.ACCEPT
    assert (await verdict(LETTER, request("127.0.0.1"), zone(), auth_exempt=[])).action == Action.REJECT
    mapped = await verdict(LETTER, request("::ffff:198.51.100.9"), zone(), auth_exempt=["198.51.100.0/24"])
    assert mapped.action == Action.ACCEPT


async def test_a_trusted_sealer_is_believed() -> None:
    told = b"Authentication-Results: mx.lists.example.org; arc=none; dmarc=pass header.from=bank.example\r\n"
    posted = LETTER.replace(b"your account", b"[list] your account")
    sets = dkimpy.arc_sign(told + posted, b"rsa", b"lists.example.org", LIST.rsa, b"mx.lists.example.org")
    octets = b"".join(sets) + posted
    asked = request(STRANGER, "list@lists.example.org")
    made = await verdict(octets, asked, zone(), trusted_sealers=["Lists.example.org"])
    assert made.action == Action.ACCEPT
    assert symbols(made)[-2:] == ["ARC_PASS", "DMARC_OVERRIDDEN"]
    assert b"dmarc=fail (p=reject overridden by ARC of lists.example.org) header.from=bank.example;" in made.headers
    assert b"arc=pass (i=1) header.d=lists.example.org" in made.headers
    assert (await verdict(octets, asked, zone())).action == Action.REJECT
    broken = octets.replace(b"Dear Bob", b"Dear Eve")
    assert (await verdict(broken, asked, zone(), trusted_sealers=["lists.example.org"])).action == Action.REJECT


class Silent:
    """A DNS that never answers."""

    async def query(self, name: str, kind: str) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError


@pytest.mark.parametrize("names", [Silent(), Zone({name: [DEAD] for name in [*zone(), "mx.bank.example"]})])
async def test_without_the_dns_nothing_is_refused_for_good(names: Names) -> None:
    made = await verdict(signed(), request(STRANGER), names, engine_deadline_s=0.5)
    assert (made.action, made.code, made.enhanced) == (Action.TEMPFAIL, 451, "4.7.1")
    assert made.text == "The DNS of bank.example cannot be asked now, try again later"
    made = await verdict(signed(), request(STRANGER), names, engine_deadline_s=0.5, auth_temperror="accept")
    assert made.action == Action.ACCEPT
    assert symbols(made) == ["SPF_TEMPERROR", "DKIM_TEMPERROR", "DMARC_TEMPERROR"]
    assert b"spf=temperror" in made.headers


@pytest.mark.parametrize(
    ("dead", "expected"),
    [
        ("rsa._domainkey.bank.example", Action.TEMPFAIL),  # it could still pass
        ("bank.example", Action.TEMPFAIL),
        ("_dmarc.bank.example", Action.TEMPFAIL),
    ],
)
async def test_what_could_still_pass_waits(dead: str, expected: int) -> None:
    made = await verdict(signed(LETTER) if "key" in dead else LETTER, request(STRANGER), zone() | {dead: [DEAD]})
    assert made.action == expected


@pytest.mark.parametrize("dead", ["rsa._domainkey.bank.example", "_dmarc.bank.example"])
async def test_what_needs_no_answer_passes(dead: str) -> None:
    made = await verdict(signed(), request(SERVER), zone() | {dead: [DEAD]})
    assert made.action == Action.ACCEPT


async def test_somebody_elses_dead_dns_saves_no_forger() -> None:
    records = zone(crook_at_example=[DEAD])
    made = await verdict(LETTER, request(STRANGER, "a@crook.example"), records)
    assert made.action == Action.REJECT


async def test_every_author_is_asked() -> None:
    for header in (b"From: a@nice.example\r\nFrom: info@bank.example", b"From: a@nice.example, info@bank.example"):
        octets = header + b"\r\n\r\nHi\r\n"
        assert (await verdict(octets, request(STRANGER, "a@nice.example"), zone())).action == Action.REJECT
    crowd = b"From: " + b", ".join(b"a@d%d.example" % n for n in range(5)) + b"\r\n\r\nHi\r\n"
    made = await verdict(crowd, request(STRANGER), zone())
    assert f"{made.code} {made.enhanced} {made.text}" == "554 5.6.0 Message refused: too many author domains in From"


async def test_no_way_round_the_policy_by_a_name_that_is_none() -> None:
    dotted = LETTER.replace(b"info@bank.example", b"info@bank.example.")
    assert (await verdict(dotted, request(STRANGER), zone())).action == Action.REJECT
    odd = LETTER.replace(b"info@bank.example", b"info@bank..example")
    assert (await verdict(odd, request(STRANGER), zone())).action == Action.JUNK


async def test_a_large_message_is_hashed_aside() -> None:
    octets = signed(LETTER + b"x" * 70 + b"\r\n" + b"y  z\r\n" * 60_000)
    made = await verdict(octets, request(STRANGER, "a@b.example"), zone())
    assert symbols(made)[1:] == ["DKIM_PASS", "DMARC_PASS"]


async def test_hostile_names_do_no_harm() -> None:
    sender = '"a b\\"; dmarc=pass"@bank.example'
    made = await verdict(LETTER, request(STRANGER, sender, helo="x\r\nY: z; spf=pass"), zone("p=none"))
    assert made.headers.decode("ascii").count("\r\n") == 6
    assert b"\r\nY:" not in made.headers
    made = await verdict(LETTER, request("not an address"), zone())
    assert made.action == Action.ACCEPT


def test_it_can_be_switched_off() -> None:
    assert "auth" not in [engine.name for engine in configured(Filter(auth=False), names=Zone({}))]
    assert "auth" in [engine.name for engine in configured(Filter(), names=Zone({}))]
