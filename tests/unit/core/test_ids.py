"""Spool ids sort by time and do not meet."""

import re

from services.core.ids import new_spool_id


def test_they_sort_by_time() -> None:
    ids = [new_spool_id(at) for at in (0, 1, 31, 32, 1_000, 1_800_000_000_000, 2**48 - 1)]
    assert ids == sorted(ids)
    assert {len(each) for each in ids} == {26}


def test_they_are_lower_case_crockford() -> None:
    assert re.fullmatch("[0-7][0-9a-hjkmnp-tv-z]{25}", new_spool_id())
    # Ten digits of five bits hold the 48 of the clock: the greatest is 7zzzzzzzzz, one is 0000000001.
    assert new_spool_id(2**48 - 1).startswith("7zzzzzzzzz")
    assert new_spool_id(1).startswith("0000000001")


def test_ids_of_one_millisecond_differ() -> None:
    assert len({new_spool_id(5) for _ in range(10_000)}) == 10_000
