"""What a URL says of the pooler that it leads through."""

import pytest

from services.core.pooler import split

PLAIN = "postgresql://u:p%40@[::1]:5432/posta"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", ("", True)),
        (PLAIN, (PLAIN, True)),
        (f"{PLAIN}?sslmode=require", (f"{PLAIN}?sslmode=require", True)),
        (f"{PLAIN}?prepared_statements=on", (PLAIN, True)),
        (f"{PLAIN}?prepared_statements=off", (PLAIN, False)),
        (f"{PLAIN}?sslmode=require&prepared_statements=off", (f"{PLAIN}?sslmode=require", False)),
    ],
)
def test_the_driver_is_not_told_what_is_ours(url: str, expected: tuple[str, bool]) -> None:
    assert split(url) == expected


@pytest.mark.parametrize("word", ["", "no", "OFF"])
def test_another_word_is_refused_without_the_url(word: str) -> None:
    with pytest.raises(ValueError, match=r"^prepared_statements: expected on or off$"):
        split(f"{PLAIN}?prepared_statements={word}")
