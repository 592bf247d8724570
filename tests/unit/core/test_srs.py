"""Senders of forwarded mail, there and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.address import Address, parse
from services.core.srs import KEEP_DAYS, Rewriter, is_rewritten

NOW = 1_795_600_800.0
DAY = 86400
OURS, THEIRS = Rewriter(b"a secret"), Rewriter(b"another secret")

SENDERS = [
    "alice@example.org",
    "Alice.Camel@example.org",
    "alice+tag@example.org",
    "a=b=c@example.org",
    '"with space"@example.org',
    '"a@b"@example.org',
    "jürgen@xn--mnchen-3ya.test",
    "bob@[192.0.2.1]",
    "srs@example.org",
    "-x@example.org",
]


def sent(text: str, by: Rewriter = OURS, domain: str = "posta.test", at: float = NOW) -> Address:
    made = by.forward(parse(text, longest_local=250), domain, at)
    assert made is not None
    return made


@pytest.mark.parametrize("text", SENDERS)
def test_there_and_back(text: str) -> None:
    made = sent(text)
    assert made.domain == "posta.test"
    assert is_rewritten(made)
    assert parse(str(made), longest_local=250) == made
    assert OURS.reverse(made, NOW) == parse(text)


def test_what_it_looks_like() -> None:
    assert str(sent("bob@example.org")).startswith("SRS0=")
    assert str(sent("bob@example.org")).endswith("=example.org=bob@posta.test")


def test_hosts_on_the_way_back_may_change_case_and_separator() -> None:
    made = sent("bob@example.org")
    for local in (made.local.lower(), made.local.upper(), made.local.replace("SRS0=", "SRS0+")):
        back = OURS.reverse(Address(local, "posta.test"), NOW)
        assert back is not None
        assert back.key == "bob@example.org"


def test_it_is_good_for_three_weeks() -> None:
    made = sent("bob@example.org")
    assert OURS.reverse(made, NOW + (KEEP_DAYS - 1) * DAY) is not None
    assert OURS.reverse(made, NOW + (KEEP_DAYS + 1) * DAY) is None
    assert OURS.reverse(made, NOW - 2 * DAY) is not None  # the clock has been set back since
    assert OURS.reverse(made, NOW - (KEEP_DAYS + 1) * DAY) is None
    assert OURS.reverse(made, NOW + 1024 * DAY) is not None  # the days are counted in a circle of 1024


def test_the_days_may_wrap() -> None:
    last = (1024 * 20 + 1023) * DAY + 5.0
    assert OURS.reverse(sent("bob@example.org", at=last), last + 3 * DAY) == parse("bob@example.org")


@given(st.integers(0, 60), st.sampled_from("abz27=@.x"))
def test_whoever_changes_it_gets_nothing(at: int, letter: str) -> None:
    made = sent("bob@example.org")
    at %= len(made.local)
    changed = made.local[:at] + letter + made.local[at + 1 :]
    if changed.lower() != made.local.lower() and not changed.lower().startswith("srs0-"):
        back = OURS.reverse(Address(changed, "posta.test"), NOW)
        assert back is None


@given(st.text(max_size=80))
def test_no_local_part_is_too_bad(text: str) -> None:
    for local in (text, f"SRS0={text}", f"srs1={text}", f"SRS1=a=b={text}", f"SRS0=a=aa=b={text}"):
        assert OURS.reverse(Address(local, "posta.test"), NOW) is None


def test_another_secret_is_no_good() -> None:
    assert THEIRS.reverse(sent("bob@example.org"), NOW) is None


def test_a_second_forwarder_leads_back_to_the_first() -> None:
    first = sent("bob@example.org", THEIRS, "first.test")
    second = sent(str(first))
    assert str(second).startswith("SRS1=")
    assert "=first.test==" in str(second)
    assert OURS.reverse(second, NOW + 100 * DAY) == first  # the day is for the first to judge
    assert THEIRS.reverse(first, NOW) == parse("bob@example.org")


def test_a_third_forwarder_leads_back_to_the_first_too() -> None:
    first = sent("bob@example.org", THEIRS, "first.test")
    second = sent(str(first), Rewriter(b"third"), "second.test")
    third = sent(str(second))
    assert "=first.test==" in str(third)
    assert "second.test" not in str(third)
    assert OURS.reverse(third, NOW) == first


def test_a_first_forwarder_with_another_separator_gets_its_own_back() -> None:
    second = sent("SRS0+xxxx=AB=example.org=bob@first.test")
    assert "=first.test=+xxxx" in str(second)
    assert OURS.reverse(second, NOW) == parse("SRS0+xxxx=AB=example.org=bob@first.test")


def test_a_tag_for_one_kind_is_none_for_the_other() -> None:
    made = sent("bob@example.org")
    assert OURS.reverse(Address(made.local.replace("SRS0", "SRS1"), "posta.test"), NOW) is None


@pytest.mark.parametrize("text", ["SRS1=only@first.test", "SRS1=a=@first.test", "SRS0=@first.test"])
def test_what_only_looks_rewritten_goes_there_and_back_all_the_same(text: str) -> None:
    assert OURS.reverse(sent(text), NOW) == parse(text)


def test_long_senders_are_rewritten_as_far_as_a_path_goes() -> None:
    long = "a" * 128 + "@example.org"
    assert OURS.reverse(sent(long), NOW) == parse(long, longest_local=128)
    assert OURS.forward(parse("a" * 64 + "@" + "d." * 90 + "test"), "posta.test", NOW) is None
