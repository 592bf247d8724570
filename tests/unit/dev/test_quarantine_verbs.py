"""Words of `posta quarantine` that need no platform."""

import pytest

from services.dev.quarantine_verbs import seconds_of
from services.dev.trouble import Trouble


@pytest.mark.parametrize(
    ("age", "seconds"), [("0s", 0), ("30m", 1800), ("12h", 43_200), ("7D", 604_800), (" 1w ", 604_800)]
)
def test_an_age(age: str, seconds: float) -> None:
    assert seconds_of(age) == seconds


@pytest.mark.parametrize("age", ["", "7", "d", "-1d", "1.5h", "٣d", "1y", "1d1h"])
def test_what_is_no_age(age: str) -> None:
    with pytest.raises(Trouble):
        seconds_of(age)
