"""Our own halves on each other: what one Posta signs, forwards and seals, another's filter examines and believes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from services.contracts.v1 import mail_pb2 as pb
from services.core.dkim.keys import RSA, SigningKey
from services.core.settings import Filter
from services.core.telemetry import Metrics, logger
from services.filter.engines import auth, configured
from services.filter.examined import Examined
from services.filter.pipeline import Pipeline
from services.filter.verdict import RULES, Action, Policy, decide
from services.mxrouter.seal import seal
from services.mxrouter.sign import sign
from tests.unit.filter.origin.zone import Zone
from tests.unit.mxrouter.letters import GOOD, dns, key, pair

NOW = datetime(2026, 11, 25, 10, tzinfo=UTC)
ADDRESS = "192.0.2.7"
# Every door refuses bare line feeds, so what verifiers would make of them is nobody's concern.
SENT = {name: octets for name, octets in GOOD.items() if name != "bare line feeds"}
# What is added to a message without a body would be a header field.
EXTENDED = {name: octets for name, octets in SENT.items() if name != "no blank line"}


def zone(*keys: SigningKey) -> dict[str, list[str]]:
    answer = dns(*keys)
    names = [f"{each.selector}._domainkey.{each.domain}" for each in keys]
    return {name: [f"TXT {answer(f'{name}.'.encode()).decode()}"] for name in names}


async def examined(octets: bytes, host: str, records: dict[str, list[str]], **settings: object) -> pb.Verdict:
    """What the filter of the platform `host` makes of a message."""
    wanted = Filter(**settings)  # type: ignore[arg-type]
    policy = Policy(rules={**RULES, **auth.rules(wanted)})
    engines = [engine for engine in configured(wanted, names=Zone(records)) if engine.name == "auth"]
    client = pb.ClientFacts(address=ADDRESS, helo="mx.posta.test", door="mxrouter", host=host)
    request = pb.ScanRequest(blob_id=b"\0" * 32, sender="alice@posta.test", client=client)
    deadline = asyncio.get_running_loop().time() + 30
    pipeline = Pipeline(engines, policy, logger("filter"), Metrics("filter"))
    return decide(await pipeline.run(Examined(request, octets), deadline), policy)


@pytest.mark.parametrize("octets", SENT.values(), ids=SENT.keys())
async def test_what_we_sign_we_believe(octets: bytes) -> None:
    signed = sign(octets, pair(), NOW) + octets
    made = await examined(signed, "mx.remote.test", zone(*pair()))
    assert [finding.symbol for finding in made.findings if finding.symbol.startswith("DKIM")] == ["DKIM_PASS"] * 2


@pytest.mark.parametrize("octets", EXTENDED.values(), ids=EXTENDED.keys())
async def test_what_is_forwarded_and_changed_on_the_way_is_believed_of_those_who_are_trusted(octets: bytes) -> None:
    keys = [*pair(), *(key(RSA, f"{name}.test") for name in ("one", "two"))]
    records = zone(*keys) | {"_dmarc.posta.test": ["TXT v=DMARC1; p=reject"]}
    message = sign(octets, pair(), NOW) + octets + (b"" if octets.endswith(b"\r\n") else b"\r\n")
    trusted = {"trusted_sealers": ["one.test", "two.test"]}
    for name in ("one", "two"):
        made = await examined(message, f"mx.{name}.test", records, **trusted)
        assert made.action == Action.ACCEPT
        # Each hop adds its results and a footer, which breaks the author's signature, and seals what it passes on.
        passed_on = made.headers + message + b"-- \r\nfooter\r\n"
        message = seal(passed_on, key(RSA, f"{name}.test"), f"mx.{name}.test", NOW) + passed_on
    made = await examined(message, "mx.remote.test", records, **trusted)
    assert made.action == Action.ACCEPT
    assert [f.symbol for f in made.findings][-2:] == ["ARC_PASS", "DMARC_OVERRIDDEN"]
    assert (await examined(message, "mx.remote.test", records)).action == Action.REJECT
    assert (await examined(message, "mx.remote.test", records, trusted_sealers=["one.test"])).action == Action.REJECT
