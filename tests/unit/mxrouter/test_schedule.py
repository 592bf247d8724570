"""When it is tried again, when its sender is told, when it is given up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.mxrouter.schedule import Again, GiveUp, Patience, after_failure, probe_wait_s, retry_wait_s

THEN = datetime(2026, 11, 25, 12, tzinfo=UTC)
H = timedelta(hours=1)
PATIENCE = Patience(4 * H, 120 * H)
WARN, END = THEN + 4 * H, THEN + 120 * H


@pytest.mark.parametrize(
    ("attempts", "minutes"),
    [(1, 2.5), (2, 5), (3, 10), (4, 20), (5, 40), (6, 80), (7, 160), (8, 240), (9, 240), (10_000, 240)],
)
def test_waits_double_up_to_four_hours(attempts: int, minutes: float) -> None:
    assert retry_wait_s(attempts, 0) == minutes * 60
    assert minutes * 60 < retry_wait_s(attempts, 0.99) < minutes * 72


def test_a_dead_destination_is_left_alone_for_an_hour_at_most() -> None:
    assert [probe_wait_s(n, 0) for n in (1, 2, 3, 6, 7, 10_000)] == [60, 120, 240, 1920, 3600, 3600]


@pytest.mark.parametrize(
    ("now", "noted", "expected"),
    [
        # The first failure says by when the sender hears of it.
        (THEN, THEN, Again(150, False, WARN)),
        (WARN - H, WARN, Again(150, False, WARN)),
        (WARN, WARN, Again(150, True, END)),
        # The relay was away for a day: the first attempt is late, and its failure news.
        (THEN + 24 * H, THEN, Again(150, True, END)),
        (THEN + 24 * H, END, Again(150, False, END)),
        # The last attempt is when the time runs out.
        (END - timedelta(seconds=60), END, Again(60, False, END)),
        (END, END, GiveUp()),
        (END + H, THEN, GiveUp()),
    ],
)
def test_after_a_failure(now: datetime, noted: datetime, expected: Again | GiveUp) -> None:
    assert after_failure(now, THEN, noted, 1, PATIENCE, 0) == expected


@given(st.lists(st.floats(0, 0.999), min_size=60, max_size=60))
def test_a_recipient_that_always_fails_is_warned_about_once_and_given_up_in_time(chances: list[float]) -> None:
    now, notice_at, warnings = THEN, THEN, []
    for attempt, chance in enumerate(chances, 1):
        match after_failure(now, THEN, notice_at, attempt, PATIENCE, chance):
            case GiveUp():
                assert now == END
                assert len(warnings) == 1
                assert WARN <= warnings[0] <= WARN + 3.5 * H
                return
            case Again(wait_s=wait_s, warn=warn, notice_at=notice_at):
                warnings += [now] if warn else []
                now += timedelta(seconds=wait_s)
    pytest.fail("tried for ever")
