"""How a house full of connections is emptied: never in one burst, never past the grace."""

import itertools
import random

import pytest

from services.imap.server import SPREAD, TURN_S, goodbyes


@pytest.mark.parametrize("count", [1, 7, 500, 10_000])
@pytest.mark.parametrize("grace_s", [0.5, 8, 25])
def test_goodbyes_are_spread(count: int, grace_s: float) -> None:
    said = goodbyes(count, grace_s, random.Random(4).random)

    assert len(said) == count
    assert said == sorted(said)
    assert said[0] >= 0
    assert said[-1] <= grace_s * SPREAD
    turn_s = min(TURN_S, grace_s * SPREAD / count)
    assert all(later - earlier < 2 * turn_s for earlier, later in itertools.pairwise(said))
    # In no second more than its share, and the two halves of a turn at its ends.
    busiest = max(sum(start <= each < start + 1 for each in said) for start in said[:: max(1, count // 100)])
    assert busiest <= 1 / turn_s + 2


def test_who_drains_beside_another_is_not_in_step_with_it() -> None:
    assert goodbyes(50, 8, random.Random(1).random) != goodbyes(50, 8, random.Random(2).random)


def test_without_grace_all_go_at_once() -> None:
    assert goodbyes(3, 0, random.random) == [0, 0, 0]
    assert goodbyes(0, 8, random.random) == []
