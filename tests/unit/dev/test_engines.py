"""Which engines a run has, and what they are told."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from services.dev import clamd, engines, rspamd
from services.dev.home import Home
from services.dev.place import Room
from services.dev.plan import Plan
from services.dev.trouble import Trouble

BOTH = {"clamd", "rspamd"}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs which is all that is installed."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(engines, "WHERE", str(tmp_path))
    return tmp_path


def install(machine: Path, *names: str) -> None:
    for name in names:
        (machine / name).write_text("#!/bin/sh\n")
        (machine / name).chmod(0o755)


@pytest.mark.parametrize(
    ("installed", "env", "chosen"),
    [
        (BOTH, {}, BOTH),
        (BOTH, {"POSTA_ENGINES": "installed"}, BOTH),
        ({"clamd"}, {}, {"clamd"}),
        (set(), {}, set()),
        (BOTH, {"POSTA_ENGINES": "none"}, set()),
        (BOTH, {"POSTA_ENGINES": "rspamd"}, {"rspamd"}),
        # A server that a setting names takes the place of the embedded one.
        (BOTH, {"POSTA_FILTER_CLAMD": "elsewhere:3310"}, {"rspamd"}),
        (BOTH, {"POSTA_FILTER_RSPAMD": "elsewhere:11333"}, {"clamd"}),
    ],
)
def test_which_engines_run(machine: Path, installed: set[str], env: Mapping[str, str], chosen: set[str]) -> None:
    install(machine, *installed)
    found = engines.chosen(Plan(), env)
    assert found == {name: machine / name for name in chosen}


def test_nobody_uses_them_without_a_filter(machine: Path) -> None:
    install(machine, "clamd", "rspamd")
    assert engines.chosen(Plan().chosen(only="imap,delivery"), {}) == {}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("clamd,rspamd", "rspamd is not installed (Debian: apt-get install rspamd)"),
        ("clamd nonsense", "POSTA_ENGINES: expected installed, none or some of clamd, rspamd, got nonsense"),
    ],
)
def test_what_is_named_must_be_there(machine: Path, words: str, says: str) -> None:
    install(machine, "clamd")
    with pytest.raises(Trouble) as refused:
        engines.chosen(Plan(), {"POSTA_ENGINES": words})
    assert str(refused.value) == says


def test_clamd_has_signatures_of_its_own_where_the_machine_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, folder = tmp_path / "system", tmp_path / "clamd"
    system.mkdir()
    folder.mkdir()
    monkeypatch.setattr(clamd, "SYSTEM_SIGNATURES", system)
    made = clamd.Clamd(Home(tmp_path), Path("/usr/sbin/clamd"), 2310, Room(folder, None))

    made.prepare()
    assert f"DatabaseDirectory {folder}\n" in (folder / "clamd.conf").read_text()
    name, kind, offset, octets = (folder / "posta.ndb").read_text().strip().split(":")
    assert (name, kind, offset) == ("EICAR-Test-Signature", "0", "*")
    assert bytes.fromhex(octets).startswith(b"X5O!P%@AP")

    (system / "daily.cld").write_text("signatures")
    made.prepare()
    assert f"DatabaseDirectory {system}\n" in (folder / "clamd.conf").read_text()


@pytest.mark.parametrize(
    ("resolvers", "asks"), [((), '"127.0.0.1:9"'), (("127.0.0.1:2553", "::1"), '"127.0.0.1:2553", "::1"')]
)
def test_rspamd_asks_nobody_but_the_platforms_own_resolver(
    tmp_path: Path, resolvers: tuple[str, ...], asks: str
) -> None:
    folder = tmp_path / "rspamd"
    folder.mkdir()
    made = rspamd.Rspamd(Home(tmp_path), Path("/usr/bin/rspamd"), 2333, 2334, Room(folder, None), resolvers)

    made.prepare()

    text = (folder / "rspamd.conf").read_text()
    assert f"nameserver = [{asks}];" in text
    assert f'password = "{made.settings["POSTA_FILTER_RSPAMD_PASSWORD"]}";' in text
    assert os.stat(folder / "rspamd.conf").st_mode & 0o077 == 0
    assert not {"rbl", "surbl", "fuzzy_check", "asn", "phishing", "spf", "dkim"} & set(rspamd.MODULES)
