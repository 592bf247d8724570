"""Clients of the flow tests: programs that nobody here wrote, and the standard library for what those cannot do."""

from __future__ import annotations

import os
import poplib
import re
import shutil
import smtplib
import socket
import subprocess
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import pytest

poplib._MAXLINE = 1 << 20  # type: ignore[attr-defined] # lines of other lengths than the standard library likes
ARRIVAL_S = 20.0


def letter(sender: str, to: str, body: str = "Hello\r\n", *more: str) -> bytes:
    """A message with a Message-ID of its own, CRLF throughout."""
    lines = (
        f"From: {sender}",
        f"To: {to}",
        f"Subject: {uuid.uuid4().hex}",
        "Date: Tue, 24 Nov 2026 10:00:00 +0000",
        f"Message-ID: <{uuid.uuid4().hex}@flow.test>",
        *more,
        "",
        body,
    )
    return "\r\n".join(lines).encode()


def message_id(message: bytes) -> str:
    """Without its angle brackets."""
    found = re.search(rb"(?im)^message-id: *<([^>]+)>", message)
    assert found is not None
    return found[1].decode()


def in_front(got: bytes, sent: bytes) -> bytes:
    """The header that Posta put in front of `sent`; the test fails where `got` does not end with it byte for byte."""
    assert got.endswith(sent), f"not what was sent: {got[-len(sent) :][:300]!r}"
    prefix = got[: len(got) - len(sent)]
    assert re.fullmatch(rb"(?:[!-9;-~]+:[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*)+", prefix), prefix
    return prefix


# ---- programs --------------------------------------------------------------------------------------------------


def run(
    tool: str, *words: str, stdin: bytes = b"", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a program that this machine may have; the test is skipped, and says so, where it has not."""
    if shutil.which(tool) is None:
        pytest.skip(f"needs {tool}")
    return subprocess.run(
        (tool, *words), input=stdin, capture_output=True, timeout=90, env={**os.environ, **(env or {})}
    )


def swaks(
    platform: Any, to: str, *words: str, user: Any = None, sender: str = "", door: str = "submission"
) -> tuple[int, str]:
    """swaks's exit code and transcript. 0: accepted; 23 MAIL, 24 RCPT, 26 the message, 28 AUTH, 29 TLS refused."""
    tls = () if door == "smtp" else ("--tls-on-connect",) if door == "submissions" else ("-tls",)
    done = run(
        "swaks",
        *("-s", "localhost", "-p", str(platform.ports[door])),
        *(*tls, "--tls-verify", "--tls-ca-path", str(platform.ca)) if tls else (),
        *(("-au", user.address, "-ap", user.password) if user else ()),
        *("-f", sender or (user.address if user else "someone@elsewhere.test"), "-t", to),
        *words,
    )
    return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")


def curl(
    platform: Any, user: Any, door: str, path: str, *words: str, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """curl at one of the doors with implicit TLS, as `user`."""
    scheme = {"pop3s": "pop3s", "imaps": "imaps", "submissions": "smtps"}[door]
    return run(
        *("curl", "-sS", "--cacert", str(platform.ca), "-u", f"{user.address}:{user.password}"),
        *(*words, f"{scheme}://localhost:{platform.ports[door]}/{path}"),
        stdin=stdin,
    )


# ---- the standard library --------------------------------------------------------------------------------------


def submission(platform: Any, user: Any) -> smtplib.SMTP:
    """A session under STARTTLS, logged in; EHLO said."""
    client = smtplib.SMTP("localhost", platform.ports["submission"], timeout=60)
    client.starttls(context=platform.tls())
    client.ehlo()
    client.login(user.address, user.password)
    return client


def offer(
    client: smtplib.SMTP,
    sender: str,
    to: Sequence[str],
    message: bytes,
    mail: Sequence[str] = (),
    rcpt: Sequence[str] = (),
) -> tuple[int, str]:
    """One transaction: the reply that ended it, be it to MAIL, to the last RCPT or to the message."""
    code, text = client.mail(sender, list(mail))
    if code != 250:
        client.rset()
        return code, text.decode()
    said = [client.rcpt(each, list(rcpt)) for each in to]
    if not any(code == 250 for code, _ in said):
        client.rset()
        return said[-1][0], said[-1][1].decode()
    code, text = client.data(message)
    return code, text.decode()


def submit(
    platform: Any,
    user: Any,
    to: str | Sequence[str],
    message: bytes,
    mail: Sequence[str] = (),
    rcpt: Sequence[str] = (),
) -> tuple[int, str]:
    """Hand one message in as `user`."""
    with submission(platform, user) as client:
        return offer(client, user.address, [to] if isinstance(to, str) else to, message, mail, rcpt)


def drop(platform: Any, user: Any) -> poplib.POP3_SSL:
    """A POP session, logged in."""
    pop = poplib.POP3_SSL("localhost", platform.ports["pop3s"], timeout=60, context=platform.tls())
    pop.user(user.address)
    pop.pass_(user.password)
    return pop


def inbox(platform: Any, user: Any) -> list[bytes]:
    """Every message of the INBOX, by POP. Told to come back, as after a restart of Postgres, it does."""
    found: tuple[list[bytes]] = platform.eventually(f"{user.address} can be read", lambda: _inbox(platform, user))
    return found[0]


def _inbox(platform: Any, user: Any) -> tuple[list[bytes]] | None:
    try:
        pop = drop(platform, user)
        try:
            return ([b"\r\n".join(pop.retr(n)[1]) + b"\r\n" for n in range(1, pop.stat()[0] + 1)],)
        finally:
            pop.quit()
    except poplib.error_proto as error:
        if b"[SYS/TEMP]" not in error.args[0]:
            raise
    except OSError:
        pass  # nobody listens for the moment
    return None


def arrived(platform: Any, user: Any, words: bytes | str, timeout_s: float = ARRIVAL_S) -> bytes:
    """The message of the INBOX that has these words, as soon as it is there."""
    wanted = words if isinstance(words, bytes) else words.encode()
    found: bytes = platform.eventually(
        f"{wanted!r} is in the INBOX of {user.address}",
        lambda: next((each for each in inbox(platform, user) if wanted in each), None),
        timeout_s,
    )
    return found


class Imap:
    """An IMAP session over TLS, in a folder, close enough to the wire to see what comes unasked."""

    def __init__(self, platform: Any, user: Any, folder: str = "INBOX") -> None:
        plain = socket.create_connection(("127.0.0.1", platform.ports["imaps"]), timeout=30)
        self.sock = platform.tls().wrap_socket(plain, server_hostname="localhost")
        self._file = self.sock.makefile("rwb", buffering=0)
        self._reader = self.sock.makefile("rb")
        self._tags = 0
        self._line()
        self.command(f'LOGIN "{user.address}" "{user.password}"')
        self.command(f'SELECT "{folder}"')

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()
        self._file.close()
        self.sock.close()

    def command(self, text: str) -> list[bytes]:
        """What it answers besides its OK; the test fails at NO and BAD."""
        self._tags += 1
        tag = b"t%d " % self._tags
        self._file.write(tag + text.encode() + b"\r\n")
        said = []
        while not (line := self._line()).startswith(tag):
            said.append(line)
        assert line.startswith(tag + b"OK"), line
        return said

    def fetch(self, number: int) -> bytes:
        """The whole message of that number, without \\Seen being set."""
        (said,) = (line for line in self.command(f"FETCH {number} BODY.PEEK[]") if b"FETCH" in line)
        found = re.search(rb"\{(\d+)\}\r\n", said)
        assert found is not None
        return said[found.end() : found.end() + int(found[1])]

    def exists(self) -> int:
        """How many messages STATUS-like NOOP and SELECT told of: asks anew."""
        return sum(1 for line in self.command("UID SEARCH ALL") for _ in line.split()[2:])

    def idle(self) -> None:
        """Begin IDLE; `heard` waits for what comes."""
        self._tags += 1
        self._file.write(b"t%d IDLE\r\n" % self._tags)
        while not self._line().startswith(b"+"):
            continue

    def heard(self, pattern: bytes, timeout_s: float = ARRIVAL_S) -> float:
        """When (time.monotonic) the session was told something that `pattern` matches."""
        self.sock.settimeout(timeout_s)
        while not re.search(pattern, self._line()):
            continue
        return time.monotonic()

    def done(self) -> None:
        """End IDLE."""
        self._file.write(b"DONE\r\n")
        while not self._line().startswith(b"t%d OK" % self._tags):
            continue

    def _line(self) -> bytes:
        line = self._reader.readline()
        while (found := re.search(rb"\{(\d+)\}\r\n$", line)) is not None:
            line += self._reader.read(int(found[1]))
            line += self._reader.readline()
        assert line, "the IMAP server hung up"
        return line[:-2]


def write_fetchmailrc(folder: Path, platform: Any, user: Any, mailbox: Path) -> Path:
    """A control file that reads by POP over TLS and appends to `mailbox`."""
    script = folder / "keep"
    script.write_text(f"#!/bin/sh\ncat >> {mailbox}\n")
    script.chmod(0o700)
    control = folder / "fetchmailrc"
    control.write_text(
        f'poll localhost protocol pop3 port {platform.ports["pop3s"]} username "{user.address}" '
        f'password "{user.password}" ssl sslcertck sslcertfile {platform.ca} keep no rewrite mda "{script}"\n'
    )
    control.chmod(0o600)
    return control


def write_mbsyncrc(folder: Path, platform: Any, user: Any) -> Path:
    """A configuration that mirrors INBOX into `folder/mail`."""
    (folder / "mail").mkdir()
    control = folder / "mbsyncrc"
    control.write_text(
        f"IMAPAccount posta\nHost localhost\nPort {platform.ports['imaps']}\nUser {user.address}\n"
        f'Pass "{user.password}"\nSSLType IMAPS\nCertificateFile {platform.ca}\nAuthMechs PLAIN\n\n'
        f"IMAPStore far\nAccount posta\n\nMaildirStore near\nPath {folder}/mail/\nInbox {folder}/mail/INBOX\n\n"
        "Channel all\nFar :far:\nNear :near:\nPatterns INBOX\nCreate Near\nSync All\nExpunge Both\nSyncState *\n"
    )
    return control
