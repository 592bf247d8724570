"""An account that suddenly sends spam is stopped, wherever it hands it in, and goes on reading."""

import os
import smtplib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flow.clients import arrived, inbox, letter, message_id, offer, submit
from tests.flow.conftest import REPO, _free
from tests.flow.test_verdicts import GTUBE

PAUSED = "5.7.1 Sending is paused for this account: ask your postmaster"


@pytest.fixture(scope="module")
def strict(new_platform: Any) -> Any:
    """A platform that bears five spam messages and ten recipients an hour."""
    platform = new_platform({"POSTA_SUBMISSION_PAUSE_BAD": "5", "POSTA_SUBMISSION_RECIPIENTS_PER_HOUR": "10"})
    platform.posta("up", "--detach")
    platform.state = platform.status()
    return platform


@pytest.fixture(scope="module")
def second_door(strict: Any) -> Iterator[int]:
    """The port of a further submission service of the same platform: another pod."""
    environ = Path(f"/proc/{strict.pid('submission')}/environ").read_bytes().decode().split("\0")
    env = dict(each.split("=", 1) for each in environ if "=" in each)
    ports = [port for port in range(strict.base + 900, strict.base + 990) if _free(port)][:3]
    names = ("POSTA_SUBMISSION_PORT", "POSTA_SUBMISSION_TLS_PORT", "POSTA_HEALTH_PORT")
    env |= {name: str(port) for name, port in zip(names, ports, strict=True)}
    door = subprocess.Popen(
        (sys.executable, "-m", "services.submission"), cwd=REPO, env={**os.environ, **env}, stdout=subprocess.DEVNULL
    )
    try:
        strict.eventually("the second door is open", lambda: not _free(ports[1]))
        yield ports[1]
    finally:
        door.terminate()
        door.wait(30)


def session(platform: Any, user: Any, port: int) -> smtplib.SMTP_SSL:
    client = smtplib.SMTP_SSL("localhost", port, timeout=60, context=platform.tls())
    client.login(user.address, user.password)
    return client


def test_an_outbreak_is_stopped_at_every_door_and_told_of_once(strict: Any, second_door: int) -> None:
    mallory, carol, postmaster = strict.add_user(), strict.add_user(), strict.add_user()
    strict.add_alias("postmaster@posta.test", postmaster.address)
    doors = [session(strict, mallory, port) for port in (strict.ports["submissions"], second_door) for _ in range(2)]
    said: list[tuple[int, str]] = []

    def spam(door: smtplib.SMTP_SSL) -> None:
        for _ in range(4):
            said.append(offer(door, mallory.address, [carol.address], letter(mallory.address, carol.address, GTUBE)))

    senders = [threading.Thread(target=spam, args=(each,)) for each in doors]
    for each in senders:
        each.start()
    for each in senders:
        each.join(60)

    assert {code for code, _ in said} == {250, 550}
    assert 5 <= [code for code, _ in said].count(250) <= 8  # a message of each session may have been on its way
    for door in doors:
        code, words = door.mail(mallory.address)
        assert (code, words.decode()) == (550, PAUSED)
        door.close()
    for reader in (mallory, postmaster):
        got = arrived(strict, reader, f"Sending is paused for <{mallory.address}>")
        assert got.startswith(b"Return-Path: <>\r\n")
    assert [len(inbox(strict, each)) for each in (mallory, postmaster)] == [1, 1]  # reading goes on, once each

    strict.posta("account", "resume", mallory.address)
    again = letter(mallory.address, carol.address)
    strict.eventually("it may send again", lambda: submit(strict, mallory, carol.address, again)[0] == 250)
    arrived(strict, carol, message_id(again))


def test_past_its_limit_an_account_is_told_when_to_try_again(strict: Any, bob: Any) -> None:
    eager = strict.add_user()
    several = [bob.address, *(strict.add_user().address for _ in range(5))]
    first, second, third = (letter(eager.address, bob.address) for _ in range(3))
    assert submit(strict, eager, several, first)[0] == 250
    code, said = submit(strict, eager, several, second)
    assert code == 450, said
    assert said.startswith("4.7.1 The account has sent to as many recipients as it may for now: try again after ")
    assert submit(strict, eager, several[:4], third)[0] == 250
    strict.posta("account", "limit", eager.address, "--hour", "100")
    strict.eventually("its own limit holds", lambda: submit(strict, eager, several, second)[0] == 250)
    assert sum(message_id(second).encode() in each for each in inbox(strict, bob)) <= 1
    arrived(strict, bob, message_id(second))
