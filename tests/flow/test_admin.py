"""The pods beside the services, against a running platform: provisioning, `helm test`, the canary."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.flow.conftest import DOMAIN, REPO, Platform, _free


def environment(platform: Platform, **more: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("POSTA_")}
    door = {name: f"localhost:{port}" for name, port in platform.ports.items()}
    return {
        **clean,
        "POSTA_DATABASE_URL": platform.database_url,
        "POSTA_NATS_URL": platform.nats_url,
        "POSTA_HEALTH_PORT": "0",
        "POSTA_PROBE_ADDRESS": f"probe@{DOMAIN}",
        "POSTA_PROBE_SUBMISSION": door["submissions"],
        "POSTA_PROBE_IMAP": door["imaps"],
        "POSTA_PROBE_POP": door["pop3s"],
        "POSTA_PROBE_MX": door["smtp"],
        "POSTA_PROBE_CA": str(platform.ca),
        **more,
    }


def admin(platform: Platform, *words: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "services.admin", *words)
    env = environment(platform, **more)
    return subprocess.run(command, cwd=REPO, env=env, input=stdin, capture_output=True, text=True, timeout=100)


def test_the_journey_of_helm_test(platform: Platform) -> None:
    done = admin(platform, "journey")
    assert done.returncode == 0, done.stdout + done.stderr + platform.last_words()
    said = done.stdout.splitlines()
    assert [line.split(":")[0].split(",")[0] for line in said] == [
        "submission took the message",
        "IMAP shows it",
        "POP shows it",
        "EICAR is refused",
        "GTUBE is in Junk",
        "the MX does not relay",
        "a flag is seen in another session on 127.0.0.1",
    ]
    assert "127.0.0.1" in said[1]
    assert f"probe@{DOMAIN}" not in platform.posta("account", "list")


def test_a_journey_that_cannot_be_made_says_where_it_ended(platform: Platform) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        done = admin(platform, "journey", POSTA_PROBE_POP=f"127.0.0.1:{closed.getsockname()[1]}")
    assert done.returncode == 1
    assert "IMAP shows it" in done.stdout
    assert "refused" in done.stderr
    assert f"probe@{DOMAIN}" not in platform.posta("account", "list")


def test_the_canary_shows_what_a_message_took(platform: Platform, tmp_path: Path) -> None:
    port = next(port for port in range(25_000, 26_000) if _free(port))
    env = environment(platform, POSTA_HEALTH_PORT=str(port), POSTA_PROBE_EVERY_S="1", POSTA_LISTEN_HOST="127.0.0.1")
    with (tmp_path / "log").open("w") as log:
        canary = subprocess.Popen((sys.executable, "-m", "services.admin", "canary"), cwd=REPO, env=env, stdout=log)

    def arrived() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                text = answer.read().decode()
        except OSError:
            return False
        return any(
            line.startswith('posta_canary_journeys_total{result="arrived"}') and float(line.split()[1]) >= 2
            for line in text.splitlines()
        )

    try:
        platform.eventually("two messages arrived", arrived, 60)
    finally:
        canary.terminate()
        assert canary.wait(30) == 0, (tmp_path / "log").read_text()


def test_a_document_is_applied_and_exported(platform: Platform, tmp_path: Path) -> None:
    document = tmp_path / "house.yaml"
    document.write_text("""
domains: [declared.test]
accounts: [{address: ann@declared.test, name: Ann, password: a secret}]
aliases: [{address: info@declared.test, targets: [ann@declared.test]}]
""")
    assert platform.posta("apply", "-f", str(document)).splitlines()[-1] == "3 changes"
    assert platform.posta("apply", "-f", str(document)) == "0 changes\n"
    exported = platform.posta("export")
    assert "ann@declared.test" in exported
    again = admin(platform, "apply", "-", stdin=exported)
    assert (again.returncode, again.stdout) == (0, "0 changes\n"), again.stderr
    assert admin(platform, "export").stdout == exported
    wrong = platform.try_posta("apply", "-f", "-", stdin="domain: x")
    assert (wrong.returncode, wrong.stderr.splitlines()[-1]) == (2, "posta: -: domain: Extra inputs are not permitted")
