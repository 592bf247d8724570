"""Domains to hosts, by a DNS on paper."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import dns.rdata
import dns.rdataclass
import dns.rdatatype
import pytest

from services.core.dns import Answer, DnsUnavailable, NoSuchName
from services.mxrouter.resolve import Host, Resolver, Unroutable


class Paper:
    """`records`: "name TYPE" to texts; "?" is a question without an answer. What is not there does not exist."""

    def __init__(self, records: Mapping[str, list[str]], authentic: bool = False) -> None:
        self.records, self.authentic = records, authentic

    async def query(self, name: str, kind: str) -> Answer:
        texts = self.records.get(f"{name} {kind}")
        if texts is None and not any(each.startswith(f"{name} ") for each in self.records):
            raise NoSuchName(name)
        if texts == ["?"]:
            raise DnsUnavailable(name)
        rdatatype = dns.rdatatype.from_text(kind)
        records = tuple(dns.rdata.from_text(dns.rdataclass.IN, rdatatype, text) for text in texts or [])
        return Answer(records, self.authentic, 60.0)


async def hosts(records: Mapping[str, list[str]], *ourselves: str, seed: int = 1, **settings: bool) -> list[str]:
    resolver = Resolver(Paper(records), ourselves, random=Random(seed), **settings)
    return [f"{host.name} {','.join(host.addresses)}" for host in await resolver.mx("a.test")]


A = {"one.test A": ["192.0.2.1"], "two.test A": ["192.0.2.2"], "three.test A": ["192.0.2.3"]}


async def test_by_preference() -> None:
    found = await hosts({"a.test MX": ["20 two.test.", "10 one.test.", "30 THREE.test."], **A})

    assert found == ["one.test 192.0.2.1", "two.test 192.0.2.2", "three.test 192.0.2.3"]


async def test_equals_share_the_load() -> None:
    records = {"a.test MX": ["10 one.test.", "10 two.test.", "5 three.test."], **A}

    orders = {tuple(await hosts(records, seed=seed)) for seed in range(20)}

    assert len(orders) == 2
    assert {order[0] for order in orders} == {"three.test 192.0.2.3"}


async def test_the_domain_itself_where_there_is_no_mx() -> None:
    assert await hosts({"a.test A": ["192.0.2.1"], "a.test AAAA": ["2001:db8::1"]}) == ["a.test 2001:db8::1,192.0.2.1"]


async def test_one_family_after_the_other() -> None:
    records = {"a.test A": ["192.0.2.1", "192.0.2.2"], "a.test AAAA": ["2001:db8::1", "2001:db8::2", "2001:db8::3"]}
    (found,) = await hosts(records)
    assert ["." in address for address in found.split()[1].split(",")] == [False, True, False, True, False]
    (found,) = await hosts(records, ipv6=False)
    assert sorted(found.split()[1].split(",")) == ["192.0.2.1", "192.0.2.2"]


@pytest.mark.parametrize("ours", ["two.test", "Two.Test.", "192.0.2.2"])
async def test_hosts_no_better_than_ourselves_are_left_out(ours: str) -> None:
    records = {"a.test MX": ["10 one.test.", "20 two.test.", "20 three.test."], **A}

    assert await hosts(records, ours) == ["one.test 192.0.2.1"]


@pytest.mark.parametrize(
    ("records", "permanent", "enhanced"),
    [
        ({}, True, "5.1.2"),
        ({"a.test MX": ["?"]}, False, "4.4.3"),
        ({"a.test MX": ["0 ."]}, True, "5.1.10"),
        ({"a.test TXT": ["x"]}, True, "5.4.4"),
        ({"a.test A": ["?"]}, False, "4.4.3"),
        ({"a.test MX": ["10 one.test."]}, True, "5.4.4"),
        ({"a.test MX": ["10 one.test.", "20 nowhere.test."], "one.test AAAA": ["?"]}, False, "4.4.3"),
        ({"a.test MX": ["10 us.test.", "20 one.test."], **A}, True, "5.4.6"),
    ],
)
async def test_no_host(records: Mapping[str, list[str]], permanent: bool, enhanced: str) -> None:
    with pytest.raises(Unroutable) as caught:
        await hosts(records, "us.test")
    assert (caught.value.permanent, caught.value.enhanced) == (permanent, enhanced)


async def test_one_that_can_be_had_is_enough() -> None:
    records = {"a.test MX": ["10 one.test.", "20 nowhere.test.", "30 . "], "one.test AAAA": ["?"], **A}

    assert await hosts(records) == ["one.test 192.0.2.1"]


@pytest.mark.parametrize(
    ("domain", "address"), [("[192.0.2.7]", "192.0.2.7"), ("[ipv6:2001:db8::7]", "2001:db8::7"), ("[x]", None)]
)
async def test_an_address_literal(domain: str, address: str | None) -> None:
    resolver = Resolver(Paper({}), ())
    if address is None:
        with pytest.raises(Unroutable):
            await resolver.mx(domain)
    else:
        assert await resolver.mx(domain) == (Host(address, (address,)),)


async def test_what_dnssec_proves() -> None:
    records = {"a.test MX": ["10 one.test."], **A}
    for authentic in (True, False):
        (host,) = await Resolver(Paper(records, authentic), ()).mx("a.test")
        assert host.authentic is authentic

    # An address of the other family that could not be asked for is not proved to be missing.
    (host,) = await Resolver(Paper({**records, "one.test AAAA": ["?"]}, authentic=True), ()).mx("a.test")
    assert not host.authentic


class Unsigned(Paper):
    """A signed zone whose host is an alias of one that nobody signed; `question` about it has no answer."""

    def __init__(self, question: str = "") -> None:
        super().__init__(
            {"a.test MX": ["10 mx.a.test."], "mx.a.test A": ["192.0.2.1"], "mx.a.test CNAME": ["one.test."]}
        )
        self.question = question

    async def query(self, name: str, kind: str) -> Answer:
        if kind == self.question:
            raise DnsUnavailable(name)
        answer = await super().query(name, kind)
        return answer._replace(
            authenticated=kind in ("MX", "CNAME"), name="one.test" if kind in ("A", "AAAA") else name
        )


async def test_an_alias_is_proven_by_its_own_zone_alone() -> None:
    (host,) = await Resolver(Unsigned(), ()).mx("a.test")
    assert (host.authentic, host.bases) == (False, ("mx.a.test",))

    # Who keeps the proof from us shall not have us do without it.
    with pytest.raises(Unroutable) as caught:
        await Resolver(Unsigned("CNAME"), ()).mx("a.test")
    assert not caught.value.permanent


async def test_a_zone_cannot_make_us_ask_without_end() -> None:
    records = {"a.test MX": [f"{n} h{n}.test." for n in range(500)]}
    records |= {f"h{n}.test A": [f"192.0.2.{m}" for m in range(200)] for n in range(500)}

    found = await hosts(records)

    assert len(found) == 20
    assert max(host.count(",") for host in found) == 7
