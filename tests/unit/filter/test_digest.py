"""What a digest says, and what strangers cannot make it say."""

import email
import email.policy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage

import pytest

from services.core.ids import AccountId, SpoolId
from services.core.store.quarantine_upkeep import Untold
from services.filter.digest import MOST, Digest, compose

NOW = datetime(2026, 11, 25, 10, 0, tzinfo=UTC)
ONE = Untold(
    account_id=AccountId(1),
    to="bob@posta.test",
    spool_id=SpoolId("01ky0000000000000000000000"),
    n=0,
    from_text="Shop <offers@shop.test>",
    subject="Jörg, cheap watches",
    kind="spam",
    reason="it looks like spam",
    score=12.34,
    received_at=NOW,
    expires_at=NOW + timedelta(days=30),
    secret=b"",
)
DIGEST = Digest("mx.posta.test", NOW, "id@mx.posta.test", [ONE], lambda item: f"https://mx.posta.test/q/{item.n}")


def parsed(digest: Digest) -> EmailMessage:
    octets = compose(digest)
    assert octets.replace(b"\r\n", b"").count(b"\n") == octets.replace(b"\r\n", b"").count(b"\r") == 0
    assert max(map(len, octets.split(b"\r\n"))) <= 998
    found = email.message_from_bytes(octets, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    assert not found.defects
    return found


def test_a_digest() -> None:
    found = parsed(DIGEST)
    assert (found["To"], found["Subject"]) == ("bob@posta.test", "A message is held for you")
    assert found["Auto-Submitted"] == "auto-generated"
    text = found.get_content()
    for words in (
        "From:    Shop <offers@shop.test>",
        "Subject: Jörg, cheap watches",
        "Held as: spam - it looks like spam (score 12.3)",
        "Arrived: 25 Nov 2026 10:00 UTC, kept until 25 Dec 2026",
        "  https://mx.posta.test/q/0",
        "naming 01ky0000000000000000000000",
    ):
        assert words in text


def test_a_virus_is_not_the_recipients_to_release() -> None:
    text = parsed(replace(DIGEST, items=[ONE._replace(kind="virus", reason="EICAR")])).get_content()
    assert "https://" not in text
    assert "ask your postmaster, naming 01ky" in text


def test_of_very_many_the_rest_is_counted() -> None:
    text = parsed(replace(DIGEST, items=[ONE._replace(n=n) for n in range(MOST + 7)])).get_content()
    assert text.count("To have it delivered:") == MOST
    assert "... and 7 more" in text


@pytest.mark.parametrize(
    "nasty",
    [
        "a\r\nBcc: eve@x.test",
        "x\r\n\r\nbody",
        "\u2028y\u2029",
        "http://evil.test/ www.evil.test",
        "z" * 5000,
        "\u202eevil",
    ],
)
def test_strangers_add_no_line_and_no_link(nasty: str) -> None:
    plain = parsed(DIGEST).get_content()
    found = parsed(replace(DIGEST, items=[ONE._replace(subject=nasty, from_text=nasty, reason=nasty)]))
    text = found.get_content()
    assert text.count("\n") == plain.count("\n")
    assert text.count("://") == plain.count("://")
    assert "www.evil" not in text
    assert "\u202e" not in text
    assert found["Bcc"] is None
