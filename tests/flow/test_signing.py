"""Keys of the demo domain, from none to signed mail, with the verbs alone: the platform's own test DNS is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def small(new_platform: Callable[..., Any]) -> Any:
    small = new_platform()
    small.posta("up", "--detach", "--only", "delivery")
    return small


def test_keys_are_activated_when_the_test_dns_shows_them(small: Any) -> None:
    assert "mail from posta.test is not signed" in small.posta("doctor")
    records = small.posta("domain", "dkim", "posta.test")

    unseen = small.try_posta("domain", "dkim", "activate", "posta.test")
    assert unseen.returncode == 1
    assert "the DNS does not show 20" in unseen.stderr

    (small.home / "zones" / "_domainkey.posta.test.zone").write_text(records)
    assert "; active since" in small.posta("domain", "dkim", "activate", "posta.test")
    assert "is shown (active)" in small.posta("doctor")
    assert "mail for posta.test goes to mx.posta.test" in small.posta("doctor"), "the demo's own zone is still there"
