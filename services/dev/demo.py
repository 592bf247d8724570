"""The demo: two users of posta.test, and a message from one to the other that is watched on its way."""

import asyncio
import os
import shutil
import ssl
import sys
import time
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from email.utils import format_datetime, localtime, make_msgid
from pathlib import Path
from typing import Any

from services.dev.home import find
from services.dev.mailtalk import Idler, submit, trusting
from services.dev.people import ALICE, BOB, PASSWORD
from services.dev.status import status
from services.dev.trouble import Trouble

ARRIVAL_S = 30.0
TRACE_S = 5.0


async def ensure_accounts(database_url: str, addresses: Sequence[str]) -> None:
    """Make demo users and their domains where they are missing; what exists is left as it is."""
    from services.dev.provision import Provisioning

    async with Provisioning.at(database_url) as provisioning:
        for domain in sorted({address.partition("@")[2] for address in addresses}):
            await provisioning.ensure_domain(domain)
        for address in addresses:
            await provisioning.ensure_account(address, PASSWORD, address.partition("@")[0].capitalize())


def letter(sender: str, to: str, subject: str, text: str) -> EmailMessage:
    """A message of the demo, with a Message-ID of its own."""
    message = EmailMessage()
    message["From"], message["To"] = sender, to
    message["Subject"] = subject
    message["Date"] = format_datetime(localtime())
    message["Message-ID"] = make_msgid(domain=sender.partition("@")[2])
    message.set_content(text)
    return message


def _greeting() -> EmailMessage:
    way = "this message has gone the whole way: submission, filter, spool, delivery, IMAP."
    return letter(ALICE, BOB, "Hello from Posta", f"Hello Bob,\n\n{way}\n\nAlice\n")


def trust(state: Mapping[str, Any]) -> ssl.SSLContext:
    """How a client of this platform knows it."""
    ca = state["urls"].get("ca")
    return trusting(Path(ca) if ca else None)


def travel(state: Mapping[str, Any]) -> None:
    """Send a message as alice, see it arrive in bob's IDLE session, print its way with times. Raises Trouble."""
    doors, urls = state["doors"], state["urls"]
    if not {"submission", "imaps"} <= doors.keys():
        return
    context, message = trust(state), _greeting()
    with Idler(doors["imaps"], context, (BOB, PASSWORD)) as bob:
        began = time.monotonic()
        reply = submit(doors["submission"], context, (ALICE, PASSWORD), message)
        accepted = time.monotonic()
        number = bob.next_exists(ARRIVAL_S)
        arrived = time.monotonic()
    print(f"\n{ALICE} → {BOB}: {reply}")
    print(f"handed in within {1000 * (accepted - began):.0f} ms, TLS and login included;", end=" ")
    print(f"bob's IDLE session saw message {number} {max(0.0, 1000 * (arrived - accepted)):.0f} ms after the 250\n")
    asyncio.run(_show_way(urls["nats"], message["Message-ID"]))


async def _show_way(nats_url: str, message_id: str) -> None:
    from services.dev.trace import journeys, show

    deadline = time.monotonic() + TRACE_S
    # Trace events are sent in the background: the last may come after the message itself.
    while not (found := await journeys(nats_url, message_id)) or "delivered" not in {s.step for s in found[-1].steps}:
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(0.1)
    show(found)


def invitation(state: Mapping[str, Any]) -> str:
    """How to point a mail client at this platform."""
    doors, urls = state["doors"], state["urls"]
    lines = ["", f"Users      {ALICE}, {BOB}; password {PASSWORD}"]
    for protocol, implicit, explicit in (
        ("IMAP", "imaps", "imap"),
        ("POP3", "pop3s", "pop3"),
        ("SMTP", "submissions", "submission"),
    ):
        if implicit in doors:
            lines.append(f"{protocol}       localhost:{doors[implicit]} (TLS) or {doors[explicit]} (STARTTLS)")
    if "http" in urls:
        lines.append(f"HTTP       {urls['http']}/docs; the admin token is in {urls['admin_token_file']}")
    lines.append(f"trust      {urls.get('ca', 'your own certificate')} (the development CA)")
    posta = _command()
    lines.append(f"Try        {posta} status, {posta} trace {BOB}, {posta} account list")
    if "submission" in doors:
        login = f"-au {ALICE} -ap {PASSWORD}"
        lines.append(f"Try        swaks -s localhost -p {doors['submission']} -tls {login} -f {ALICE} -t {BOB}")
    return "\n".join([*lines, "", "Ctrl-C stops everything; the data stay in " + state["home"]])


def _command() -> str:
    """`posta` as a person in this folder has to type it."""
    if shutil.which("posta"):
        return "posta"
    installed = Path(sys.executable).with_name("posta")
    return str(installed.relative_to(Path.cwd()) if installed.is_relative_to(Path.cwd()) else installed)


def main(arguments: list[str]) -> None:
    """Beside a running platform: the message unless `--quiet`, then the invitation."""
    try:
        state = status(find(os.environ))
        if "--quiet" not in arguments:
            travel(state)
        print(invitation(state), flush=True)
    except Trouble as trouble:
        print(f"posta: the demo message did not arrive: {trouble}", file=sys.stderr, flush=True)
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
