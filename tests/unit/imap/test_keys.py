"""SEARCH keys: what SQL is asked, and what is left to look at."""

from datetime import date

import pytest

from services.imap import keys
from services.imap.keys import And, Candidate, Clause, Found, Look, Not, Or

HEADER = b"Date: Tue, 2 Jan 2024 01:00:00 +1000\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nX-Odd: one\r\n two\r\n\r\n"
FOUND = Found("Grüße", HEADER, HEADER + b"the body\r\n")


def candidate(*exact: bool) -> Candidate:
    return Candidate(1, 1, False, FOUND.subject, b"", b"", len(HEADER), len(FOUND.octets), exact)


def test_what_sql_decides_is_one_row_and_needs_no_look() -> None:
    plan = keys.plan(And((keys.seen(False), Not(keys.flag(4, True)), keys.size(10, larger=True))), 7, 1, 99)
    assert plan.needs is None
    assert plan.args == (7, 1, 99, 10)
    assert "array_agg" in plan.statement
    assert "objects" not in plan.statement


def test_an_unsure_key_is_asked_for_from_above_and_under_not_from_below() -> None:
    unsure = Look(Clause("upper({0})", (1,)), Clause("lower({0})", (2,)), "octets", lambda _: True)
    assert "AND (upper($4))" in keys.plan(unsure, 7, 1, 99).statement
    negated = keys.plan(Not(unsure), 7, 1, 99)
    assert "AND (NOT (lower($4)))" in negated.statement
    assert "(NOT (upper($5)))" in negated.statement
    assert negated.needs == "octets"


def test_what_sql_decided_is_not_decided_again() -> None:
    key = Or((And((keys.seen(True), keys.body("nowhere"))), Not(keys.size(3, larger=True))))
    assert not keys.matches(key, candidate(True, True), FOUND)
    assert keys.matches(key, candidate(False, False), FOUND)
    both = And((keys.seen(True), keys.body("THE Body"), keys.size(3, larger=True)))
    assert keys.matches(both, candidate(True, True), FOUND)
    assert not keys.matches(both, candidate(True, False), FOUND)


@pytest.mark.parametrize(
    ("key", "holds"),
    [
        # RFC 9051 6.4.4: the day is the sender's, whatever UTC says (it is still the first there).
        (keys.sent_on(date(2024, 1, 2)), True),
        (keys.sent_before(date(2024, 1, 2)), False),
        (keys.header("x-odd", "ONE two"), True),
        (keys.header("X-ODD", ""), True),
        (keys.header("X-Other", ""), False),
        (keys.subject("GRÜSSE"), True),
        (keys.body("the BODY"), True),
        (keys.body("one two"), False),
    ],
)
def test_looking_at_the_message(key: keys.Key, holds: bool) -> None:
    assert keys.matches(key, candidate(), FOUND) is holds


def test_the_candidate_says_which_octets_a_test_needs() -> None:
    long = candidate()._replace(prefix=b"12345678", header_length=20, size=50)
    assert long.slice("header") == (b"", 0, 12)
    assert long.slice("octets") == (b"", 0, 42)
    assert long._replace(header_length=5).slice("header") == (b"", 0, 0)
