"""Quota, and the notices that tell a sender what became of a message (RFC 3461, RFC 3464)."""

import email
import email.policy
import uuid
from email.message import EmailMessage
from typing import Any

from tests.flow.clients import arrived, inbox, letter, message_id, offer, submission, submit

KIB = "x" * 1022 + "\r\n"


def notice(platform: Any, user: Any, words: str) -> EmailMessage:
    """The DSN in a user's INBOX that speaks of it, parsed by the standard library."""
    found = email.message_from_bytes(arrived(platform, user, words), policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    assert found["Return-Path"] == "<>"
    assert found["Auto-Submitted"] == "auto-replied"
    assert found.get_content_type() == "multipart/report"
    assert found.get_param("report-type") == "delivery-status"
    return found


def status(found: EmailMessage) -> list[Any]:
    """The recipients' fields."""
    parts = list(found.iter_parts())
    assert [part.get_content_type() for part in parts][:2] == ["text/plain", "message/delivery-status"]
    return list(parts[1].iter_parts())[1:]  # type: ignore[attr-defined]


def test_a_full_mailbox_is_refused_at_the_door(platform: Any, alice: Any, bob: Any) -> None:
    carol = platform.add_user(quota_octets=20 << 10)

    code, said = submit(platform, alice, carol.address, b"", ["SIZE=30000"])
    assert (code, said[:5]) == (552, "5.2.2")
    # Neither size nor room can be known before the message is there: the answer to it is still a refusal.
    code, said = submit(platform, alice, carol.address, letter(alice.address, carol.address, KIB * 30))
    assert (code, said[:5]) == (552, "5.2.2")

    fits = letter(alice.address, carol.address, KIB * 15)
    assert submit(platform, alice, carol.address, fits)[0] == 250
    arrived(platform, carol, message_id(fits))
    with submission(platform, alice) as client:
        # The door looks anew at how full a mailbox is every two seconds.
        platform.eventually("it is full", lambda: full(client, alice, carol))
        code, said = offer(client, alice.address, [carol.address], letter(alice.address, carol.address, KIB * 15))
        assert (code, said[:5]) == (452, "4.2.2")
        both = letter(alice.address, carol.address, KIB * 15)
        assert client.mail(alice.address, [f"size={len(both)}"])[0] == 250
        assert [client.rcpt(each)[0] for each in (carol.address, bob.address)] == [452, 250]
        assert client.data(both)[0] == 250
    in_front_of_bob = arrived(platform, bob, message_id(both))
    assert in_front_of_bob.endswith(both)
    assert len(inbox(platform, carol)) == 1


def full(client: Any, alice: Any, carol: Any) -> bool:
    client.mail(alice.address, ["size=15000"])
    code = client.rcpt(carol.address)[0]
    client.rset()
    return bool(code == 452)


def test_who_loses_the_race_for_the_last_octets_is_told(platform: Any) -> None:
    """Through an alias the door cannot refuse for one mailbox of several: delivery tells the sender."""
    sender, roomy = platform.add_user(), platform.add_user()
    tight = platform.add_user(quota_octets=2 << 10)
    both = f"both-{uuid.uuid4().hex[:8]}@posta.test"
    platform.add_alias(both, tight.address, roomy.address)
    message = letter(sender.address, both, KIB * 4)

    assert submit(platform, sender, both, message, ["RET=HDRS", "ENVID=QQ314159"])[0] == 250

    found = notice(platform, sender, message_id(message))
    (fields,) = status(found)
    assert fields["Action"] == "failed"
    assert fields["Status"] == "5.2.2"
    assert fields["Original-Recipient"] == f"rfc822;{both}"
    assert tight.address in fields["Final-Recipient"]
    (per_message, *_) = list(found.iter_parts())[1].iter_parts()  # type: ignore[attr-defined]
    assert per_message["Original-Envelope-Id"] == "QQ314159"
    returned = list(found.iter_parts())[2]
    assert returned.get_content_type() == "text/rfc822-headers"
    assert message_id(message) in str(returned.get_content())
    arrived(platform, roomy, message_id(message))
    assert inbox(platform, tight) == []
    assert len(inbox(platform, sender)) == 1


def test_many_at_once_into_a_small_mailbox_are_kept_or_told_of(platform: Any) -> None:
    sender = platform.add_user()
    tight = platform.add_user(quota_octets=12 << 10)
    accepted = []
    with submission(platform, sender) as client:
        for _ in range(6):
            message = letter(sender.address, tight.address, KIB * 3)
            if offer(client, sender.address, [tight.address], message)[0] == 250:
                accepted.append(message_id(message))

    platform.eventually(
        "each was kept or told of",
        lambda: len(inbox(platform, tight)) + len(inbox(platform, sender)) == len(accepted) >= 3,
    )
    kept = b"".join(inbox(platform, tight))
    told = b"".join(inbox(platform, sender))
    assert all((each.encode() in kept) != (each.encode() in told) for each in accepted)


def test_success_is_told_when_asked_for(platform: Any, alice: Any) -> None:
    sender, carol = platform.add_user(), platform.add_user()
    message = letter(sender.address, carol.address)
    rcpt = ["NOTIFY=SUCCESS,FAILURE", f"ORCPT=rfc822;{carol.address.replace('@', '+40')}"]

    assert submit(platform, sender, carol.address, message, ["RET=FULL"], rcpt)[0] == 250

    (fields,) = status(notice(platform, sender, message_id(message)))
    assert (fields["Action"], fields["Status"]) == ("delivered", "2.0.0")
    assert fields["Original-Recipient"] == f"rfc822;{carol.address}"
    arrived(platform, carol, message_id(message))


def test_never_is_never(platform: Any) -> None:
    sender, roomy = platform.add_user(), platform.add_user()
    tight = platform.add_user(quota_octets=2 << 10)
    both = f"quiet-{uuid.uuid4().hex[:8]}@posta.test"
    platform.add_alias(both, tight.address, roomy.address)
    quiet, loud = (letter(sender.address, both, KIB * 4) for _ in range(2))

    assert submit(platform, sender, both, quiet, (), ["NOTIFY=NEVER"])[0] == 250
    arrived(platform, roomy, message_id(quiet))
    assert submit(platform, sender, both, loud)[0] == 250

    notice(platform, sender, message_id(loud))
    assert len(inbox(platform, sender)) == 1
