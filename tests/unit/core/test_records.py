"""The records of a domain, for everything that its zone may say."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import cast

import dns.rdata
import pytest

from services.core.dns import Answer, Dns, DnsUnavailable, NoSuchName
from services.core.records import Record, domain_records, is_reserved
from services.core.store.dkim import Key

HOST = "mail.posta.example"


class Zone:
    """The DNS as (name, type) -> records; a name that is in no key does not exist."""

    def __init__(self, records: Mapping[tuple[str, str], list[str]]) -> None:
        self._records = records

    async def query(self, name: str, kind: str) -> Answer:
        if name == "broken.org":
            raise DnsUnavailable(f"{kind} of {name}: SERVFAIL")
        if name not in {each for each, _ in self._records}:
            raise NoSuchName(f"{name} does not exist")
        found = [dns.rdata.from_text("IN", kind, text) for text in self._records.get((name, kind), [])]
        return Answer(tuple(found), False, 60.0)

    async def addresses(self, name: str) -> tuple[str, ...]:
        return tuple(each.to_text() for each in (await self.query(name, "A")).records)


GOOD = {
    ("here.org", "MX"): [f"10 {HOST}."],
    ("here.org", "TXT"): ['"some site verification"', '"v=spf1 mx" " -all"'],
    ("_dmarc.here.org", "TXT"): ['"v=DMARC1; p=reject"'],
    ("a._domainkey.here.org", "TXT"): ['"v=DKIM1; k=ed25519; p=cHVibGlj"'],
    (HOST, "A"): ["192.0.2.1"],
}


def key(state: str) -> Key:
    now = datetime.now(UTC)
    return Key("here.org", state[0], "ed25519", "cHVibGlj", state, now, now)


async def states(
    records: Mapping[tuple[str, str], list[str]], domain: str = "here.org", keys: Sequence[Key] = (key("active"),)
) -> list[Record]:
    return await domain_records(cast(Dns, Zone(records)), domain, HOST, keys)


async def test_a_domain_as_it_should_be() -> None:
    assert await states(GOOD) == [
        Record("ok", f"mail for here.org goes to {HOST}"),
        Record("ok", "SPF of here.org: v=spf1 mx -all"),
        Record("ok", "DKIM of here.org: a._domainkey.here.org is shown (active)"),
        Record("ok", "DMARC of here.org: v=DMARC1; p=reject"),
    ]


@pytest.mark.parametrize(
    ("changed", "state", "says", "do"),
    [
        ({("here.org", "MX"): []}, "wrong", "has no MX record", f"here.org. MX 10 {HOST}."),
        ({("here.org", "MX"): ["0 ."]}, "wrong", "takes no mail", f"here.org. MX 10 {HOST}."),
        ({("here.org", "MX"): ["10 other.org."], ("other.org", "A"): ["192.0.2.2"]}, "note", f"not to {HOST}", "MX 10"),
        ({("here.org", "MX"): ["10 gone.org."]}, "wrong", "gone.org, an MX of here.org, has no address", "gone.org. A"),
        ({("here.org", "TXT"): []}, "wrong", "has no SPF record", 'here.org. TXT "v=spf1 mx -all"'),
        ({("here.org", "TXT"): ['"v=spf1 -all"', '"v=spf1 mx -all"']}, "wrong", "2 SPF records", "leave one"),
        ({("here.org", "TXT"): ['"v=spf10 -all"']}, "wrong", "has no SPF record", ""),
        ({("_dmarc.here.org", "TXT"): []}, "note", "has no DMARC record", "_dmarc.here.org. TXT"),
        ({("_dmarc.here.org", "TXT"): ['"v=DMARC1"', '"v=DMARC1"']}, "note", "2 DMARC records", "_dmarc.here.org. TXT"),
    ],
)
async def test_what_is_missing_comes_with_the_line_that_mends_it(
    changed: Mapping[tuple[str, str], list[str]], state: str, says: str, do: str
) -> None:
    found = [record for record in await states({**GOOD, **changed}) if record.state != "ok"]
    (record,) = [each for each in found if says in each.says]
    assert record.state == state
    assert do in record.do


async def test_a_missing_dmarc_name_is_no_missing_domain() -> None:
    found = await states({key: value for key, value in GOOD.items() if key[0] != "_dmarc.here.org"})
    assert [record.state for record in found] == ["ok", "ok", "ok", "note"]


@pytest.mark.parametrize(
    ("keys", "shown", "expected"),
    [
        ([], True, [("note", "`posta domain dkim here.org` makes a pair and shows its records")]),
        # Nothing is signed with it yet: it is waited for.
        ([key("published")], True, [("note", "`posta domain dkim here.org` shows the records of those that wait")]),
        ([key("retired")], True, [("note", "`posta domain dkim rotate here.org` makes a pair and shows its records")]),
        ([key("active"), key("published"), key("retired")], True, [("ok", "")]),
        (
            [key("active")],
            False,
            [("wrong", 'a._domainkey.here.org. 3600 IN TXT ( "v=DKIM1; k=ed25519; p=cHVibGlj" )')],
        ),
    ],
)
async def test_the_keys_that_sign_must_be_shown(
    keys: Sequence[Key], shown: bool, expected: list[tuple[str, str]]
) -> None:
    zone = {at: value for at, value in GOOD.items() if shown or "_domainkey" not in at[0]}
    found = [each for each in await states(zone, keys=keys) if "sign" in each.says or "DKIM" in each.says]
    assert [(each.state, each.do.partition(";")[0] if each.state == "note" else each.do) for each in found] == expected


@pytest.mark.parametrize(("domain", "says"), [("nowhere.org", "does not exist"), ("broken.org", "does not answer")])
async def test_a_domain_of_which_nothing_can_be_said(domain: str, says: str) -> None:
    (record,) = await states(GOOD, domain)
    assert (record.state, says in record.says) == ("wrong", True)
    unsigned = (await states(GOOD, domain, keys=[]))[-1]
    assert (unsigned.state, "has no active DKIM key" in unsigned.says) == ("note", True)


def test_names_for_tests() -> None:
    assert is_reserved("posta.test")
    assert is_reserved("localhost")
    assert not is_reserved("test.org")
