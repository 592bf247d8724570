"""`posta domain dkim` as a postmaster types it, on a real store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import dns.zone
import pytest

from services.core.dkim.keys import RSA, make
from services.core.store import accounts
from services.core.store.engine import Store


class Shell:
    """Where `posta` is typed."""

    def __init__(self, home: Path, database_url: str) -> None:
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("POSTA_")}
        self.env |= {"POSTA_HOME": str(home), "POSTA_DATABASE_URL": database_url}

    def dkim(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        posta = Path(sys.executable).with_name("posta")
        return subprocess.run(
            [posta, "domain", "dkim", *words], env=self.env | env, capture_output=True, text=True, check=False
        )


@pytest.fixture
async def shell(store: Store, postgres_url: str, tmp_path: Path) -> Shell:
    async with store.begin("test") as conn:
        await accounts.create_domain(conn, "posta.test")
    return Shell(tmp_path / "home", postgres_url)


def said(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_what_is_printed_is_a_piece_of_a_zone_file(shell: Shell) -> None:
    first = said(shell.dkim("posta.test"))
    assert "; published: put these records into the zone, then `posta domain dkim activate posta.test`" in first
    assert "until then nothing is signed" in first
    assert said(shell.dkim("show", "Posta.Test")) == first
    read = dns.zone.from_text(f"$ORIGIN posta.test.\n@ 1 IN SOA a b 1 1 1 1 1\n@ 1 IN NS a\n{first}", relativize=False)
    keys = json.loads(said(shell.dkim("posta.test", "--json")))
    for key in keys:
        (record,) = read.get_rdataset(f"{key['name']}.", "TXT")
        assert b"".join(record.strings).decode() == key["value"]
    assert [key["algorithm"] for key in keys] == ["rsa", "ed25519"]


async def test_a_rotation_tells_what_to_do_next(shell: Shell) -> None:
    said(shell.dkim("posta.test"))
    # No server answers there: nothing is known of the records.
    unseen = shell.dkim("activate", "posta.test", POSTA_DNS_SERVERS="127.0.0.1:1", POSTA_DNS_TIMEOUT_S="0.2")
    assert (unseen.returncode, unseen.stdout) == (1, "")
    assert "the DNS does not answer about" in unseen.stderr
    assert "; active since" in said(shell.dkim("activate", "posta.test", "--force"))
    both = said(shell.dkim("rotate", "posta.test"))
    assert "; active since" in both
    assert "until then the active ones sign" in both
    after = said(shell.dkim("activate", "posta.test", "--force"))
    assert "; retired" in after
    assert "then `posta domain dkim remove posta.test`" in after
    early = shell.dkim("remove", "posta.test")
    assert early.returncode == 1
    assert "no keys of posta.test have been retired for 7 days" in early.stderr


async def test_a_key_of_another_signer_is_imported(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "mail.private"
    file.write_text(make(RSA, None).private_key)
    assert "\nmail._domainkey.posta.test. " in said(shell.dkim("import", "posta.test", "mail", str(file)))
    missing = shell.dkim("import", "posta.test", "mail", str(tmp_path / "nothing"))
    assert (missing.returncode, missing.stderr) == (2, f"posta: {tmp_path / 'nothing'}: No such file or directory\n")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("elsewhere.test",), 1, "elsewhere.test is no domain of ours"),
        (("activate", "posta.test"), 1, "no keys of posta.test wait to be activated"),
        (("turn", "posta.test"), 2, "expected DOMAIN, rotate|activate|remove"),
        (("rotate", "posta.test", "more"), 2, "expected DOMAIN, rotate|activate|remove"),
        (("import", "posta.test", "mail"), 2, "expected DOMAIN, rotate|activate|remove"),
        ((), 2, "Missing argument"),
    ],
)
async def test_what_is_refused_is_one_clear_line(shell: Shell, words: tuple[str, ...], code: int, says: str) -> None:
    refused = shell.dkim(*words)
    assert (refused.returncode, refused.stdout) == (code, "")
    assert says in refused.stderr
    assert "Traceback" not in refused.stderr
