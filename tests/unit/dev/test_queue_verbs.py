"""`posta queue` and `posta route` as a postmaster types them, on a real Postgres and without NATS."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from services.core.seal import Seal
from services.core.store.engine import Store
from tests.unit.mxrouter.house import House

REPO = Path(__file__).parents[3]
Posta = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def house(store: Store) -> House:
    return House(store)


@pytest.fixture
def posta(postgres_url: str, tmp_path: Path) -> Posta:
    def run(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        env = {name: value for name, value in os.environ.items() if name[:11] == "POSTA_SEAL_" or name[:6] != "POSTA_"}
        env |= {"POSTA_HOME": str(tmp_path), "POSTA_DATABASE_URL": postgres_url, "COLUMNS": "200"}
        return subprocess.run(
            (sys.executable, "-m", "services.dev", *words),
            cwd=REPO,
            env=env,
            input=stdin,
            capture_output=True,
            text=True,
        )

    return run


async def said(posta: Posta, *words: str, stdin: str = "") -> str:
    done = await asyncio.to_thread(posta, *words, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


async def refused(posta: Posta, *words: str, stdin: str = "") -> tuple[int, str]:
    done = await asyncio.to_thread(posta, *words, stdin=stdin)
    return done.returncode, done.stderr.strip()


async def test_the_queue(house: House, posta: Posta) -> None:
    assert await said(posta, "queue", "list") == ""
    first = await house.accept("a@far.test", "b@other.test")
    await house.accept("c@far.test", sender="")
    await house.rows("UPDATE spool_recipients SET attempts = 2, last_reply = '450 4.2.0 [not markup]' WHERE n = 1")

    listed = await said(posta, "queue", "list")
    assert "a@far.test" in listed
    assert "450 4.2.0 [not markup]" in listed
    rows = json.loads(await said(posta, "queue", "list", "--domain", "FAR.test", "--sender", "<>", "--json"))
    assert [(row["address"], row["state"]) for row in rows] == [("c@far.test", "fresh")]
    assert await said(posta, "queue", "list", "--age", "1h") == ""
    shown = await said(posta, "queue", "show", first)
    assert f"Subject: {first}" in shown
    assert "c@far.test" not in shown
    assert await refused(posta, "queue", "show", "nothing") == (1, "posta: nothing has no recipients in the queue")

    assert await said(posta, "queue", "hold", "--domain", "far.test") == "2 recipients held"
    assert json.loads(await said(posta, "queue", "release", first, "--json")) == {"recipients": 1}
    assert await said(posta, "queue", "retry", "--all") == "2 recipients attempted again now"


async def test_a_drop_asks_first_and_says_what_it_did(house: House, posta: Posta) -> None:
    await house.accept("a@far.test", "b@other.test")
    code, _ = await refused(posta, "queue", "drop", "--all", stdin="n\n")
    assert code != 0
    assert len(await house.recipients()) == 2
    assert "2 recipients" in await said(posta, "queue", "drop", "--all", "--bounce", stdin="y\n")
    assert await house.recipients("doomed") == ["Given up by the postmaster"] * 2
    dropped = await said(posta, "queue", "drop", "--domain", "far.test", "--yes")
    assert dropped == "1 recipient dropped, nobody is told"
    assert await house.recipients() == ["b@other.test"]


async def test_what_is_meant_must_be_said(house: House, posta: Posta) -> None:
    await house.accept("a@far.test")
    for words in (("hold",), ("drop", "--yes")):
        code, why = await refused(posta, "queue", *words)
        assert (code, why) == (2, "posta: which ones? Spool ids, --domain, --sender, --age or --all")
    assert (await refused(posta, "queue", "hold", "--age", "3 fortnights"))[0] == 2
    assert (await refused(posta, "queue", "hold", "--domain", "a..b"))[0] == 2
    assert await house.recipients("held") == [False]


async def test_routes(house: House, posta: Posta) -> None:
    assert await said(posta, "route", "add", "Relay.test", "--sender", "@Posta.Test") == (
        "mail of @posta.test to all other domains goes through relay.test:587"
    )
    assert await said(posta, "route", "add", "mx", "--recipient", "direct.test") == (
        "mail of everybody to direct.test goes by MX"
    )
    rows = json.loads(await said(posta, "route", "list", "--json"))
    assert [(row["sender"], row["recipient"], row["host"]) for row in rows] == [
        ("@posta.test", "", "relay.test"),
        ("", "direct.test", ""),
    ]
    assert "relay.test" in await said(posta, "route", "list")
    assert await refused(posta, "route", "add", "no host") == (2, "posta: 'no host' is no host name or address")
    await said(posta, "route", "remove", "--recipient", "direct.test")
    code, why = await refused(posta, "route", "remove", "--recipient", "direct.test")
    assert (code, why) == (1, "posta: there is no route from everybody to direct.test")


async def test_passwords_of_routes(house: House, posta: Posta, monkeypatch: pytest.MonkeyPatch) -> None:
    async def kept() -> str:
        ((password,),) = await house.rows("SELECT password FROM relay_routes")
        return str(password)

    add = ("route", "add", "relay.test", "--username", "us", "--password-stdin", "--json")
    assert await refused(posta, *add, stdin="s3cret\n") == (
        1, "posta: seal.secret is not set: without it a password would lie in the store for all to read"
    )  # fmt: skip
    monkeypatch.setenv("POSTA_SEAL_SECRET", "old wax")
    assert "s3cret" not in await said(posta, *add, stdin="s3cret\n")
    assert "s3cret" not in await said(posta, "route", "list", "--json")
    assert "s3cret" not in await kept()
    assert Seal(SecretStr("old wax")).open(await kept()) == "s3cret"

    monkeypatch.setenv("POSTA_SEAL_SECRET", "new wax")
    assert await refused(posta, "route", "seal") == (1, "posta: neither seal.secret nor seal.former opens it")
    monkeypatch.setenv("POSTA_SEAL_FORMER", "old wax")
    assert await said(posta, "route", "seal") == "1 password sealed"
    assert Seal(SecretStr("new wax")).open(await kept()) == "s3cret"
