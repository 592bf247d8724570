"""SPF: records of RFC 7208 and of people who mean no good."""

from ipaddress import ip_address

import pytest

from services.filter.origin import spf, spf_macros
from services.filter.origin.spf_record import BadRecord, is_record, parse
from tests.unit.filter.origin.zone import DEAD, Zone

# RFC 7208 appendix A, with documentation addresses.
WORLD = {
    "example.com": [
        "MX 10 mail-a.example.com.", "MX 20 mail-b.example.com.", "A 192.0.2.10", "A 192.0.2.11",
    ],
    "amy.example.com": ["A 192.0.2.65"],
    "mail-a.example.com": ["A 192.0.2.129"],
    "mail-b.example.com": ["A 192.0.2.130", "AAAA 2001:db8::130"],
    "mail-c.example.org": ["A 192.0.2.140"],
    "example.org": ["MX 10 mail-c.example.org."],
    "10.2.0.192.in-addr.arpa": ["PTR example.com."],
    "65.2.0.192.in-addr.arpa": ["PTR amy.example.com."],
    "140.2.0.192.in-addr.arpa": ["PTR mail-c.example.org."],
    "liar.example.net": ["A 192.0.2.66"],
    "67.2.0.192.in-addr.arpa": ["PTR liar.example.com."],
    "liar.example.com": ["A 192.0.2.68"],
    "joel.example.net": ["TXT v=spf1 -all"],
    "3.2.0.192.joel.test.example.net": ["A 127.0.0.2"],
}  # fmt: skip


def world(**policies: str) -> Zone:
    records = {name: list(each) for name, each in WORLD.items()}
    for name, policy in policies.items():
        records.setdefault(name.replace("_", "."), []).append(f"TXT {policy}")
    return Zone(records)


async def asked(zone: Zone, client: str, sender: str = "strong-bad@example.com", helo: str = "mx.example.net") -> str:
    return str((await spf.check(zone, ip_address(client), sender, helo)).result)


@pytest.mark.parametrize(
    ("policy", "passing", "failing"),
    [
        ("v=spf1 +all", ["192.0.2.129", "2001:db8::1"], []),
        ("v=spf1 a -all", ["192.0.2.10", "192.0.2.11"], ["192.0.2.65", "2001:db8::130"]),
        ("v=spf1 a:example.org -all", [], ["192.0.2.10"]),
        ("v=spf1 mx -all", ["192.0.2.129", "192.0.2.130", "2001:db8::130"], ["192.0.2.10", "2001:db8::131"]),
        ("v=spf1 mx:example.org -all", ["192.0.2.140"], ["192.0.2.129"]),
        ("v=spf1 mx mx:example.org -all", ["192.0.2.129", "192.0.2.140"], ["192.0.2.10"]),
        ("v=spf1 mx/30 mx:example.org/30 -all", ["192.0.2.131", "192.0.2.143"], ["192.0.2.132"]),
        ("v=spf1 mx//126 -all", ["2001:db8::133"], ["2001:db8::134"]),
        ("v=spf1 ptr -all", ["192.0.2.10", "192.0.2.65"], ["192.0.2.140", "192.0.2.67", "10.0.0.4"]),
        ("v=spf1 ip4:192.0.2.128/28 -all", ["192.0.2.129"], ["192.0.2.65", "2001:db8::c000:280"]),
        ("v=spf1 ip6:2001:db8::/32 -all", ["2001:db8::1"], ["192.0.2.1", "2001:db9::1"]),
        ("v=spf1 ip4:192.0.2.0/24 -all", ["::ffff:192.0.2.7"], []),
        ("V=SPF1 IP4:192.0.2.1 -ALL", ["192.0.2.1"], ["192.0.2.2"]),
        ("v=spf1 exists:%{ir}.%{l1r-}.test.example.net -all", [], ["192.0.2.3"]),
        ("v=spf1 exists:%{i}.example.net exists:amy.%{d} -all", ["192.0.2.3"], []),
        ("v=spf1 redirect=joel.example.net", [], ["192.0.2.1"]),
        ("v=spf1 ip4:192.0.2.1 redirect=joel.example.net", ["192.0.2.1"], ["192.0.2.2"]),
        ("v=spf1 include:joel.example.net ip4:192.0.2.2 -all", ["192.0.2.2"], ["192.0.2.1"]),
        ("v=spf1 a:amy.%{d} moo=%{h} -all exp=why.%{d}", ["192.0.2.65"], ["192.0.2.1"]),
    ],
)  # fmt: skip
async def test_policies(policy: str, passing: list[str], failing: list[str]) -> None:
    for client in passing:
        assert await asked(world(example_com=policy), client) == "pass", client
    for client in failing:
        assert await asked(world(example_com=policy), client) == "fail", client


async def test_local_parts_may_have_policies_of_their_own() -> None:
    zone = world(example_com="v=spf1 exists:%{ir}.%{l1r-}.test.example.net -all")
    for sender, expected in [("joel", "pass"), ("joel-list", "pass"), ("strong-joel", "fail"), ("strong-bad", "fail")]:
        assert await asked(zone, "192.0.2.3", f"{sender}@example.com") == expected, sender


# RFC 7208 7.4.
@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("%{s}", "strong-bad@email.example.com"),
        ("%{o}", "email.example.com"),
        ("%{d4}", "email.example.com"),
        ("%{d2}", "example.com"),
        ("%{d1}", "com"),
        ("%{dr}", "com.example.email"),
        ("%{d2r}", "example.email"),
        ("%{l}", "strong-bad"),
        ("%{l-}", "strong.bad"),
        ("%{lr-}", "bad.strong"),
        ("%{l1r-}", "strong"),
        ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
        ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
        ("%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"),
        ("%%%_%-.example.net", "% %20.example.net"),
        ("%{L}", "strong-bad"),
        ("%{S}", "strong-bad%40email.example.com"),
        ("%{p}.example.net", "unknown.example.net"),
        ("%{d1000000}", "email.example.com"),
    ],
)
def test_macros(text: str, expanded: str) -> None:
    letters = spf_macros.values(
        ip_address("192.0.2.3"), "strong-bad@email.example.com", "email.example.com", "mx.example.org", "unknown"
    )
    assert spf_macros.expand(text, letters) == expanded


def test_macros_of_ipv6() -> None:
    letters = spf_macros.values(ip_address("2001:db8::cb01"), "a@example.com", "example.com", "mx", "unknown")
    nibbles = "1.0.b.c.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2"
    assert spf_macros.expand("%{ir}.%{v}._spf.%{d2}", letters) == f"{nibbles}.ip6._spf.example.com"


def test_a_name_grown_too_long_loses_its_left() -> None:
    letters = spf_macros.values(ip_address("192.0.2.3"), f"{'a.' * 120}b@example.com", "example.com", "mx", "unknown")
    expanded = spf_macros.expand("%{l}.%{d}.example.net", letters)
    assert len(expanded) <= 253
    assert expanded.endswith(".b.example.com.example.net")


@pytest.mark.parametrize(
    "record",
    [
        "v=spf1 moo -all", "v=spf1 a: -all", "v=spf1 a:example -all", "v=spf1 a:museum. -all", "v=spf1 a/33 -all",
        "v=spf1 a/024 -all", "v=spf1 a//129 -all", "v=spf1 ip4 -all", "v=spf1 ip4:1.2.3 -all", "v=spf1 ip4:::1 -all",
        "v=spf1 ip4:192.0.2.0/ -all", "v=spf1 ip6:192.0.2.1 -all", "v=spf1 all:example.com", "v=spf1 all/8",
        "v=spf1 include -all", "v=spf1 exists -all", "v=spf1 -all redirect=a.example redirect=b.example",
        "v=spf1 redirect= -all", "v=spf1 a:%{x}.example.com -all", "v=spf1 a:%(d).example.com", "v=spf1 a:100%.example",
        "v=spf1 a:%{d0}.example.com", "v=spf1 exists:%{c}.example.com", "v=spf1 a:\u00fc.example.com",
        "v=spf1 ip6:fe80::1%eth0", "v=spf1 a=b:%x -all",
    ],
)  # fmt: skip
async def test_a_syntax_error_voids_all_of_a_record(record: str) -> None:
    with pytest.raises(BadRecord):
        parse(record)
    # Even where a mechanism before it would match.
    zone = Zone({"example.com": [f"TXT v=spf1 +all {record[6:]}"]})
    assert await asked(zone, "192.0.2.1") == "permerror"


@pytest.mark.parametrize(
    ("record", "expected"),
    [("v=spf1", True), ("v=spf1 -all", True), ("v=spf10 -all", False), ("v=spf1-all", False), ("spf2.0/pra", False)],
)
def test_which_records_are_meant(record: str, expected: bool) -> None:
    assert is_record(record) is expected


@pytest.mark.parametrize(
    ("records", "sender", "expected"),
    [
        ({}, "a@nowhere.example", "none"),
        ({"example.com": ["TXT hello"]}, "a@example.com", "none"),
        ({"example.com": ["TXT v=spf1 -all", "TXT v=spf1 +all"]}, "a@example.com", "permerror"),
        ({"example.com": [DEAD]}, "a@example.com", "temperror"),
        ({"example.com": ["TXT v=spf1 a:b.example -all"], "b.example": [DEAD]}, "a@example.com", "temperror"),
        ({"example.com": ["TXT v=spf1 include:b.example -all"]}, "a@example.com", "permerror"),
        ({"example.com": ["TXT v=spf1 redirect=b.example"]}, "a@example.com", "permerror"),
        (
            {"example.com": ["TXT v=spf1 ?include:b.example -all"], "b.example": ["TXT v=spf1 +all"]},
            "a@example.com", "neutral",
        ),
        ({"example.com": ["TXT v=spf1 ip4:10.0.0.1"]}, "a@example.com", "neutral"),
        ({"example.com": ["TXT v=spf1 ~all"]}, "a@example.com", "softfail"),
        # PTR is the one lookup whose failure only means that it does not match (RFC 7208 5.5).
        ({"example.com": ["TXT v=spf1 ptr ~all"], "1.2.0.192.in-addr.arpa": [DEAD]}, "a@example.com", "softfail"),
        ({"localhost": ["TXT v=spf1 -all"]}, "a@localhost", "none"),
        ({}, "a@[192.0.2.1]", "none"),
        ({}, "a@x..example", "none"),
        ({}, f"a@{'x' * 64}.example", "none"),
        ({"mx.example.net": ["TXT v=spf1 -all"]}, "postmaster@mx.example.net", "fail"),
        ({"example.com": ["TXT v=spf1 " + "ip4:10.0.0.1 " * 900 + "-all"]}, "a@example.com", "none"),
    ],
)  # fmt: skip
async def test_outcomes(records: dict[str, list[str]], sender: str, expected: str) -> None:
    assert await asked(Zone(records), "192.0.2.1", sender) == expected


def includes(count: int) -> Zone:
    records = {"example.com": ["TXT v=spf1 " + " ".join(f"include:i{n}.example" for n in range(count)) + " -all"]}
    return Zone(records | {f"i{n}.example": ["TXT v=spf1 ip4:10.0.0.1 -all"] for n in range(count)})


async def test_ten_lookups_and_no_more() -> None:
    assert await asked(includes(10), "192.0.2.1") == "fail"
    zone = includes(11)
    assert await asked(zone, "192.0.2.1") == "permerror"
    assert len(zone.asked) == 11  # the policy itself and ten includes


@pytest.mark.parametrize("modifier", ["include:", "redirect="])
async def test_a_loop_ends(modifier: str) -> None:
    zone = Zone({"example.com": [f"TXT v=spf1 {modifier}example.com"]})
    assert await asked(zone, "192.0.2.1") == "permerror"
    assert len(zone.asked) == 11


async def test_two_lookups_may_find_nothing() -> None:
    policy = "TXT v=spf1 a:x.example a:y.example {} ip4:192.0.2.1 -all"
    assert await asked(Zone({"example.com": [policy.format("")]}), "192.0.2.1") == "pass"
    assert await asked(Zone({"example.com": [policy.format("exists:z.example")]}), "192.0.2.1") == "permerror"
    # A name that is there with other types counts as well.
    zone = Zone({"example.com": [policy.format("mx:z.example")], "z.example": ["A 10.0.0.1"]})
    assert await asked(zone, "192.0.2.1") == "permerror"


async def test_an_mx_of_many_hosts_is_an_error() -> None:
    hosts = {f"h{n}.example": [f"A 10.0.0.{n}"] for n in range(11)}
    zone = Zone({"example.com": ["TXT v=spf1 mx -all", *(f"MX 10 {host}." for host in hosts)], **hosts})
    assert await asked(zone, "192.0.2.1") == "permerror"
    zone.records["example.com"].pop()
    assert await asked(zone, "192.0.2.1") == "fail"


async def test_only_ten_of_many_pointers_are_followed() -> None:
    reverse = {"1.2.0.192.in-addr.arpa": [f"PTR h{n}.example.com." for n in range(500)]}
    zone = Zone(
        reverse | {"example.com": ["TXT v=spf1 ptr -all"]} | {f"h{n}.example.com": ["A 10.0.0.1"] for n in range(500)}
    )
    assert await asked(zone, "192.0.2.1") == "fail"
    assert len(zone.asked) == 12


async def test_the_validated_name() -> None:
    zone = world(example_com="v=spf1 exists:%{p}.ok.example.net -all")
    zone.records["amy.example.com.ok.example.net"] = ["A 127.0.0.1"]
    assert await asked(zone, "192.0.2.65") == "pass"
    assert await asked(zone, "192.0.2.67") == "fail"  # its name does not point back
    assert ("unknown.ok.example.net", "A") in zone.asked
