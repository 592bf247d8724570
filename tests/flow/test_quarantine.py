"""Held mail from the door to the reader: what its sender hears, what its recipients are told, how it is let go."""

import asyncio
import json
import re
import secrets
from typing import Any

import asyncpg
import httpx
import pytest

from tests.flow.clients import arrived, inbox, letter, message_id, submit, swaks
from tests.flow.conftest import User
from tests.flow.test_admin import admin
from tests.flow.test_notices import notice, status
from tests.flow.test_verdicts import EICAR, GTUBE, with_attachment

HELD = re.compile(r"550 5\.7\.1 Message refused: (.*); held for review, id ([0-9a-z]{26})")
LINK = re.compile(rb"https://\S+/quarantine/\S+")


@pytest.fixture(scope="module")
def holding(new_platform: Any) -> Any:
    """A platform that holds spam and attachments, and looks after what it holds all the time."""
    settings = {
        "POSTA_FILTER_HOLD": "ATTACHMENT_TYPE VIRUS",
        "POSTA_FILTER_HOLD_SCORE": "8",
        "POSTA_QUARANTINE_WATCH_S": "0.2",
        "POSTA_QUARANTINE_DIGEST_S": "0.2",
        "POSTA_SUBMISSION_PAUSE_BAD": "6",
    }
    platform = new_platform(settings)
    platform.posta("up", "--detach")
    platform.state = platform.status()
    platform.provision(lambda p: p.add_domain("kind.test"))
    platform.posta("quarantine", "policy", "kind.test", "--on-held", "accept")
    return platform


def kind_user(platform: Any) -> User:
    """Somebody whose domain lets senders hear 250."""
    user = User(f"{secrets.token_hex(4)}@kind.test", "correct horse")
    platform.provision(lambda p: p.add_account(user.address, user.password))
    return user


def held(platform: Any, *words: str) -> list[dict[str, Any]]:
    """`posta quarantine list --json`."""
    found: list[dict[str, Any]] = json.loads(platform.posta("quarantine", "list", "--json", *words))
    return found


def steps(platform: Any, what: str) -> list[str]:
    """The steps of everything that the trace knows of it."""
    return [step["step"] for journey in platform.trace(what) for step in journey["steps"]]


async def sql(platform: Any, statement: str, *values: object) -> list[Any]:
    conn = await asyncpg.connect(platform.database_url)
    try:
        return list(await conn.fetch(statement, *values))
    finally:
        await conn.close()


def test_a_refused_sender_a_digest_and_a_link_that_releases(holding: Any) -> None:
    carol = holding.add_user()
    code, said = swaks(holding, carol.address, "--body", GTUBE, "--header", "Subject: cheap watches", door="smtp")
    found = HELD.search(said)
    assert (code, bool(found)) == (26, True), said
    assert found is not None
    name = found[2]

    digest = arrived(holding, carol, name)
    assert digest.startswith(b"Return-Path: <>\r\n")
    assert b"Subject: cheap watches" in digest
    link = LINK.search(digest)
    assert link is not None
    with httpx.Client(verify=holding.tls()) as browser:
        page = browser.get(link[0].decode())
        assert (page.status_code, "cheap watches" in page.text, "<form" in page.text) == (200, True, True)
        assert "script" not in page.headers["content-security-policy"]
        assert [each["state"] for each in held(holding, "--recipient", carol.address)] == ["held"]
        assert len(inbox(holding, carol)) == 1  # to look is not to release
        for _ in range(3):
            assert browser.post(link[0].decode()).status_code == 200
        spoilt = link[0].decode()[:-1] + ("0" if link[0][-1:] != b"0" else "1")
        assert browser.post(spoilt).status_code == 404
        assert "<form" not in browser.get(link[0].decode()).text

    got = arrived(holding, carol, "X-Posta-Released: " + name)
    assert GTUBE.encode() in got
    assert len(inbox(holding, carol)) == 2
    assert held(holding, "--recipient", carol.address) == []
    holding.eventually("the trace has it all", lambda: {"held", "refused", "released"} <= set(steps(holding, name)))


def test_a_login_is_refused_with_the_id_and_the_postmaster_releases(holding: Any) -> None:
    sender, carol = holding.add_user(), holding.add_user()
    message = with_attachment(sender.address, carol.address, "setup.exe", b"hello")
    code, said = submit(holding, sender, carol.address, message)
    found = HELD.search(f"{code} {said}")
    assert found is not None, said
    assert found[1] == "attachment type not allowed (setup.exe)"

    shown = holding.posta("quarantine", "show", found[2])
    assert "ATTACHMENT_TYPE by policy" in shown
    assert f"Message-ID: <{message_id(message)}>" in shown
    eml = holding.posta("quarantine", "show", found[2], "--eml")
    assert eml.encode().endswith(message.replace(b"\r\n", b"\n")) or eml.encode().endswith(message)
    assert found[2] in holding.posta("quarantine", "release", found[2])
    assert arrived(holding, carol, "X-Posta-Released").endswith(message)
    assert "was settled before" in holding.posta("quarantine", "release", found[2])
    assert holding.try_posta("quarantine", "release", "01ky0000000000000000000000").returncode == 1


def test_helm_test_finds_its_spam_in_quarantine(holding: Any) -> None:
    told = {
        "POSTA_PROBE_ADMIN": f"localhost:{holding.ports['https']}",
        "POSTA_SYNC_ADMIN_TOKEN": holding.admin_token,
    }
    refused = admin(holding, "journey", **told)
    assert refused.returncode == 0, refused.stdout + refused.stderr
    assert re.search(r"^GTUBE is held for review: 550 .*, id \w{26}$", refused.stdout, re.MULTILINE)
    accepted = admin(holding, "journey", POSTA_PROBE_ADDRESS="probe@kind.test", **told)
    assert accepted.returncode == 0, accepted.stdout + accepted.stderr
    assert "EICAR is held for review: 250 " in accepted.stdout
    assert "GTUBE is in quarantine: 250 " in accepted.stdout
    wrong = admin(holding, "journey", **told | {"POSTA_SYNC_ADMIN_TOKEN": "of somebody else"})
    assert wrong.returncode == 1
    assert "the admin API answers 401 for " in wrong.stderr


def test_a_virus_is_the_postmasters_to_release(holding: Any) -> None:
    sender, carol = holding.add_user(), holding.add_user()
    code, said = submit(holding, sender, carol.address, letter(sender.address, carol.address, EICAR + "\r\n"))
    found = HELD.search(f"{code} {said}")
    assert found is not None, said
    digest = arrived(holding, carol, found[2])
    assert LINK.search(digest) is None
    assert b"ask your postmaster" in digest


def test_the_admin_api_does_what_the_verbs_do(holding: Any) -> None:
    sender, carol = holding.add_user(), kind_user(holding)
    messages = [letter(sender.address, carol.address, GTUBE + "\r\n") for _ in range(2)]
    names = [submit(holding, sender, carol.address, each)[1].split()[-1] for each in messages]
    headers = {"Authorization": f"Bearer {holding.admin_token}"}
    base = f"https://localhost:{holding.ports['https']}/api/v1"
    with httpx.Client(verify=holding.tls(), headers=headers) as admin:
        listed = admin.get(f"{base}/quarantine", params={"recipient": carol.address}).json()
        assert [(each["spool_id"], each["state"], each["kind"]) for each in listed] == [
            (name, "held", "spam") for name in names[::-1]
        ]
        assert admin.get(f"{base}/quarantine/{names[0]}/message").content.endswith(messages[0])
        assert admin.post(f"{base}/quarantine/{names[0]}/release").json()["recipients"] == [carol.address]
        assert admin.post(f"{base}/quarantine/{names[0]}/release").json()["recipients"] == []
        assert admin.post(f"{base}/quarantine/{names[1]}/train").json()["recipients"] == [carol.address]
        assert admin.get(f"{base}/quarantine/{names[1]}").json()["state"] == "deleted"
        assert admin.get(f"{base}/quarantine/nothing").status_code == 404
        assert admin.get(f"{base}/domains/kind.test/held").json()["on_held"] == "accept"
    assert arrived(holding, carol, "X-Posta-Released").endswith(messages[0])


@pytest.mark.parametrize("end", ["deleted", "expired"])
def test_a_sender_who_heard_250_is_told_once_that_nobody_wanted_it(holding: Any, end: str) -> None:
    sender, carol = holding.add_user(), kind_user(holding)
    message = letter(sender.address, carol.address, GTUBE + "\r\n")
    code, said = submit(holding, sender, carol.address, message, ["ENVID=QQ1"])
    assert code == 250, said
    name = said.split()[-1]
    assert inbox(holding, sender) == []

    if end == "deleted":
        holding.posta("quarantine", "delete", name)
    else:
        asyncio.run(sql(holding, "UPDATE quarantine SET expires_at = now() WHERE spool_id = $1", name))
    found = notice(holding, sender, name)
    (fields,) = status(found)
    assert (fields["Action"], fields["Status"]) == ("failed", "5.7.1")
    assert carol.address in fields["Final-Recipient"]
    holding.eventually("the trace says so", lambda: end in steps(holding, name))
    # Other looks have come and gone: a message held later has had its digest.
    later = submit(holding, sender, carol.address, letter(sender.address, carol.address, GTUBE + "\r\n"))[1].split()[-1]
    arrived(holding, carol, later)
    assert len(inbox(holding, sender)) == 1
    assert not any(message_id(message).encode() in each for each in inbox(holding, carol))


def test_a_sender_may_be_told_at_once(holding: Any) -> None:
    holding.provision(lambda p: p.add_domain("open.test"))
    holding.posta("quarantine", "policy", "open.test", "--on-held", "accept", "--notify-sender", "--no-digest")
    sender, carol = holding.add_user(), User("carol@open.test", "correct horse")
    holding.provision(lambda p: p.add_account(carol.address, carol.password))
    code, said = submit(holding, sender, carol.address, letter(sender.address, carol.address, GTUBE + "\r\n"))
    assert code == 250, said
    (fields,) = status(notice(holding, sender, said.split()[-1]))
    assert (fields["Action"], fields["Status"]) == ("delayed", "4.7.1")
    assert inbox(holding, carol) == []
