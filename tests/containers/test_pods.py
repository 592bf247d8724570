"""A message through the pods of the chart, `helm test`, and what becomes of clients when pods go."""

from __future__ import annotations

import imaplib
import os
import poplib
import re
import signal
import smtplib
import ssl
import uuid
from email.message import EmailMessage
from pathlib import Path

import pytest

from tests.containers.pods import DEPLOYMENTS, Platform, User, eventually

EICAR = "X5O!P%@AP[4\\PZX54(P^)7CC)7}" + "$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"


def trusting(platform: Platform) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(platform.ca))


def letter(sender: str, to: str, body: str = "Hello") -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, to, uuid.uuid4().hex
    message.set_content(body)
    return message


def submit(platform: Platform, user: User, message: EmailMessage) -> None:
    with smtplib.SMTP("localhost", platform.port("submission", 2587), timeout=40) as client:
        client.starttls(context=trusting(platform))
        client.login(user.address, user.password)
        client.send_message(message)


def imap(platform: Platform, user: User, pod: str = "imap-0") -> imaplib.IMAP4_SSL:
    client = imaplib.IMAP4_SSL("localhost", platform.port(pod, 2993), ssl_context=trusting(platform), timeout=30)
    client.login(user.address, user.password)
    client.select("INBOX")
    return client


def subjects(client: imaplib.IMAP4) -> str:
    client.noop()
    return str(client.fetch("1:*", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1])


def idle(client: imaplib.IMAP4) -> None:
    client.send(b"i1 IDLE\r\n")
    assert client.readline().startswith(b"+ ")


def told(client: imaplib.IMAP4, line: bytes) -> None:
    """Wait until an IDLE session is told this; the connection's own patience ends it."""
    while (said := client.readline()) != line:
        assert said.startswith(b"* "), said


def test_helm_test_is_green(platform: Platform) -> None:
    code, said = platform.run("Pod", "test")

    assert code == 0, said
    for promise in (
        "IMAP shows it",
        "POP shows it",
        "EICAR is refused: 554 ",
        "GTUBE is held for review: 550 ",
        "the MX does not relay",
    ):
        assert promise in said
    seen = re.search(r"a flag is seen on (\S+), set on (\S+)", said)
    assert seen is not None, said
    assert seen[1] != seen[2]


def test_a_message_goes_from_submission_to_imap_and_pop(platform: Platform) -> None:
    alice, bob = platform.add_user(), platform.add_user()
    message = letter(alice.address, bob.address)

    submit(platform, alice, message)

    client = imap(platform, bob)
    eventually("bob has it by IMAP", lambda: message["Subject"] in subjects(client))
    client.logout()
    pop = poplib.POP3_SSL("localhost", platform.port("pop", 2995), context=trusting(platform), timeout=30)
    pop.user(bob.address)
    pop.pass_(bob.password)
    assert message["Subject"].encode() in b"\n".join(pop.retr(1)[1])
    pop.quit()


def test_a_message_comes_in_from_another_server(platform: Platform) -> None:
    bob = platform.add_user()
    message = letter("someone@elsewhere.test", bob.address)

    with smtplib.SMTP("localhost", platform.port("mx", 2525), timeout=40) as client:
        client.starttls(context=trusting(platform))
        client.send_message(message)

    client = imap(platform, bob)
    eventually("bob has it", lambda: message["Subject"] in subjects(client))
    client.logout()


def test_a_virus_is_refused_at_the_door(platform: Platform) -> None:
    alice, bob = platform.add_user(), platform.add_user()

    with pytest.raises(smtplib.SMTPDataError) as refused:
        submit(platform, alice, letter(alice.address, bob.address, EICAR))

    assert refused.value.smtp_code // 100 == 5


@pytest.mark.parametrize("service", DEPLOYMENTS)
def test_a_service_has_no_rights_to_lose(platform: Platform, service: str) -> None:
    pid = platform.state(service)["Pid"]

    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert status["Uid"].split() == ["10001"] * 4
    assert int(status["CapPrm"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    mounts = [line.split() for line in Path(f"/proc/{pid}/mounts").read_text().splitlines()]
    assert [options.split(",")[0] for _, place, _, options, *_ in mounts if place == "/"] == ["ro"]


@pytest.mark.parametrize("service", DEPLOYMENTS)
def test_a_killed_container_comes_back(platform: Platform, service: str) -> None:
    before = platform.state(service)["Pid"]

    os.kill(before, signal.SIGKILL)

    eventually(f"{service} runs again", lambda: platform.state(service)["Pid"] not in (0, before))
    platform.until_ready(service)


def test_idle_clients_recover_when_their_imap_pod_is_killed(platform: Platform) -> None:
    alice, bob = platform.add_user(), platform.add_user()
    lost, kept = imap(platform, bob, "imap-0"), imap(platform, bob, "imap-1")
    for client in (lost, kept):
        idle(client)

    os.kill(platform.state("imap-0")["Pid"], signal.SIGKILL)

    assert lost.readline() == b""
    # As its mail program does: at once, and the Service has a pod that is there.
    again = imap(platform, bob, "imap-1")
    idle(again)
    message = letter(alice.address, bob.address)
    submit(platform, alice, message)
    for client in (again, kept):
        told(client, b"* 1 EXISTS\r\n")

    platform.until_ready("imap-0")
    new = imap(platform, bob, "imap-0")
    assert message["Subject"] in subjects(new)
    idle(new)
    submit(platform, alice, letter(alice.address, bob.address))
    for client in (again, kept, new):
        told(client, b"* 2 EXISTS\r\n")
        client.shutdown()


def test_a_stopped_pod_says_goodbye_and_ends_within_its_grace(platform: Platform) -> None:
    bob = platform.add_user()
    client = imap(platform, bob)
    pid = platform.state("imap")["Pid"]

    os.kill(pid, signal.SIGTERM)

    goodbye = client.readline()
    assert goodbye.startswith(b"* BYE ")
    eventually("imap runs again", lambda: platform.state("imap")["Pid"] not in (0, pid))
    assert '"stopped"' in platform.log("imap")
    platform.until_ready("imap")
