"""The wiring of the filter: what its settings name is there, or it does not start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("OPTIONAL", "nobody", "no such engine: nobody"),
        # An engine that is not configured cannot be optional: whoever names it believes that it is there.
        ("OPTIONAL", "spam_rspamd", "no such engine: spam_rspamd"),
        ("RSPAMD", "http://rspamd", "POSTA_FILTER_RSPAMD: expected host:port or the path of a socket"),
        ("RSPAMD_CONTROLLER", "x:y", "POSTA_FILTER_RSPAMD_CONTROLLER: expected host:port or the path of a socket"),
    ],
)
def test_what_cannot_be_is_one_line_and_2(name: str, value: str, says: str) -> None:
    env = {each: text for each, text in os.environ.items() if not each.startswith("POSTA_")}
    given = {
        "POSTA_DATABASE_URL": "postgresql://posta@127.0.0.1:1/nowhere",
        "POSTA_NATS_URL": "nats://127.0.0.1:1",
        "POSTA_HEALTH_PORT": "0",
        f"POSTA_FILTER_{name}": value,
    }
    done = subprocess.run(
        (sys.executable, "-m", "services.filter"),
        cwd=REPO,
        env={**env, **given},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2, done.stdout
    assert done.stderr == f"posta: {says}\n"
