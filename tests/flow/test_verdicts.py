"""What the filter says is what the peer hears; without a filter nothing comes in."""

import base64
from typing import Any

import pytest

from tests.flow.clients import arrived, inbox, letter, message_id, submit, swaks

# In two pieces, so that no scanner takes this file for what it tests with.
EICAR = "X5O!P%@AP[4\\PZX54(P^)7CC)7}" + "$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*" + "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"


def with_attachment(sender: str, to: str, name: str, content: bytes) -> bytes:
    lines = ("--b", "Content-Type: text/plain", "", "see the attachment", "--b", f'Content-Type: x/y; name="{name}"')
    encoded = base64.encodebytes(content).decode().replace("\n", "\r\n")
    body = "\r\n".join((*lines, "Content-Transfer-Encoding: base64", "", f"{encoded}--b--", ""))
    return letter(sender, to, body, "MIME-Version: 1.0", "Content-Type: multipart/mixed; boundary=b")


@pytest.mark.parametrize("door", ["submission", "smtp"])
def test_a_virus_is_refused_with_its_name(platform: Any, alice: Any, bob: Any, door: str) -> None:
    user = alice if door == "submission" else None
    code, said = swaks(platform, bob.address, "--body", EICAR, user=user, door=door)
    assert code == 26, said
    assert "554 5.7.1" in said
    assert "EICAR-Test-Signature" in said


def test_a_virus_in_an_attachment_is_refused_as_well(platform: Any, alice: Any, bob: Any) -> None:
    code, said = submit(
        platform, alice, bob.address, with_attachment(alice.address, bob.address, "a.txt", EICAR.encode())
    )
    assert code == 554
    assert "EICAR-Test-Signature" in said


def test_an_attachment_that_runs_is_refused(platform: Any, alice: Any, bob: Any) -> None:
    code, said = submit(
        platform, alice, bob.address, with_attachment(alice.address, bob.address, "invoice.pdf.exe", b"hello")
    )
    assert (code, "invoice.pdf.exe" in said) == (550, True), said


def test_bulk_mail_lands_in_junk(platform: Any, alice: Any) -> None:
    carol = platform.add_user()
    message = letter(alice.address, carol.address, GTUBE + "\r\n")

    assert submit(platform, alice, carol.address, message)[0] == 250

    steps = platform.eventually(
        "it was delivered",
        lambda: [s for j in platform.trace(message_id(message)) for s in j["steps"] if s["step"] == "delivered"],
    )
    assert "junk" in steps[0]["detail"]
    assert inbox(platform, carol) == []  # POP shows the INBOX alone


def test_without_a_filter_the_doors_say_later_and_keep_nothing(platform: Any, alice: Any, bob: Any) -> None:
    refused = [letter(alice.address, bob.address) for _ in range(2)]
    platform.stop("filter")
    try:
        code, said = submit(platform, alice, bob.address, refused[0])
        assert (code, said[:5]) == (451, "4.7.1")
        code, said = swaks(platform, bob.address, door="smtp")
        assert code in (25, 26), said
        assert "451 4.7.1" in said
    finally:
        platform.start("filter")

    accepted = letter(alice.address, bob.address)
    assert submit(platform, alice, bob.address, accepted)[0] == 250
    arrived(platform, bob, message_id(accepted))
    assert not any(message_id(each).encode() in got for got in inbox(platform, bob) for each in refused)
