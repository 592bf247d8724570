"""A tenant's admin on a running platform: a token from a shell, and its own part of mail that went between two."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
import uuid
from typing import Any

from tests.flow.clients import letter, message_id, submit
from tests.flow.conftest import Platform, User


def test_each_admin_traces_its_end_of_a_message_between_two_tenants(platform: Platform, alice: User) -> None:
    name = f"tenant-{uuid.uuid4().hex[:8]}"
    domain = f"{name}.test"
    platform.posta("domain", "add", domain)
    platform.posta("account", "add", f"tom@{domain}", "--password", alice.password)
    theirs = platform.posta("token", "create", name, "--domain", domain, "--expires", "2099-01-01").strip()
    ours = platform.posta("token", "create", f"{name}-2", "--domain", alice.address.partition("@")[2]).strip()

    message = letter(alice.address, f"tom@{domain}")
    assert submit(platform, alice, f"tom@{domain}", message)[0] == 250

    def steps(token: str) -> list[tuple[str, str]]:
        found = get(platform, token, f"traces?what={message_id(message)}")
        return [(step["step"], step["recipient"]) for each in found for step in each["steps"]]

    platform.eventually("it is delivered", lambda: ("delivered", f"tom@{domain}") in steps(theirs))
    assert [step for step, _ in steps(theirs)] == ["received", "scanned", "accepted", "delivered"]
    assert {recipient for _, recipient in steps(ours)} == {""}  # sent by us: to whom is for the others to see
    assert [each["address"] for each in get(platform, theirs, "accounts")] == [f"tom@{domain}"]
    assert get(platform, theirs, f"accounts/{alice.address}") == 404
    assert get(platform, theirs, "queue") == 403

    listed = {each["name"]: each for each in json.loads(platform.posta("token", "list", "--json"))}
    assert (listed[name]["domains"], listed[name]["used_at"] is None) == ([domain], False)
    platform.posta("token", "revoke", name)
    assert get(platform, theirs, "accounts") == 401
    refused = platform.try_posta("token", "revoke", name)
    assert (refused.returncode, refused.stderr) == (1, f"posta: there is no token {name}\n")


def get(platform: Platform, token: str, path: str) -> Any:
    """The answer, or its status where it is an error."""
    url = f"http://localhost:{platform.ports['http']}/api/v1/{path}"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code
