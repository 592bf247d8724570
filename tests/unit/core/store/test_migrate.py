"""What a migration Job says, and with which exit code."""

from __future__ import annotations

import pytest

from services.core.store.migrate import main


def test_a_database_that_is_up_to_date_is_left_as_it_is(postgres_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(postgres_url) == 0
    assert capsys.readouterr().err.startswith("posta: the schema is at ")


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("postgresql://posta:secret@127.0.0.1:1/posta", 1, "Connect call failed"),
        ("postgresql://posta:secret@nowhere.invalid/posta", 1, "not known"),
        ("secret", 2, "POSTA_DATABASE_URL: expected "),
        ("postgresql://posta:secret@host:port/posta", 2, "POSTA_DATABASE_URL: expected "),
    ],
)
def test_trouble_is_one_line_without_the_password(
    url: str, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(url) == code
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert said in line
    assert "secret" not in line


def test_a_wrong_password_is_one_line(postgres_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    scheme, _, rest = postgres_url.partition("://")
    wrong = f"{scheme}://posta:wrong@{rest.rpartition('@')[2]}"

    assert main(wrong) == 1
    assert capsys.readouterr().err.endswith('password authentication failed for user "posta"\n')
