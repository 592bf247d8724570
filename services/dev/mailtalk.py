"""As much of a mail client as the demo needs: hand a message in, see it arrive."""

import smtplib
import socket
import ssl
import time
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import BinaryIO, Self, cast

from services.dev.trouble import Trouble

HOST = "127.0.0.1"


def trusting(ca: Path | None) -> ssl.SSLContext:
    """TLS that trusts the development CA, or the system's where there is none of ours."""
    return ssl.create_default_context(cafile=str(ca) if ca else None)


def submit(port: int, context: ssl.SSLContext, login: tuple[str, str], message: EmailMessage) -> str:
    """Hand `message` in over STARTTLS; the reply that took responsibility. Raises Trouble where it is refused."""
    try:
        with smtplib.SMTP("localhost", port, timeout=60) as client:
            client.starttls(context=context)
            client.login(*login)
            code, said = client.mail(message["From"])
            if code == 250:
                code, said = client.rcpt(message["To"])
            if code == 250:
                code, said = client.data(message.as_bytes(policy=SMTP))
    except (OSError, smtplib.SMTPException) as error:
        raise Trouble(f"submission on port {port}: {error}") from None
    text = said.decode("utf-8", "replace")
    if code != 250:
        raise Trouble(f"submission on port {port}: {code} {text}")
    return f"{code} {text}"


class Idler:
    """An IMAP session over TLS that sits in IDLE on INBOX and sees what arrives."""

    def __init__(self, port: int, context: ssl.SSLContext, login: tuple[str, str]) -> None:
        try:
            plain = socket.create_connection((HOST, port), timeout=30)
            self._socket = context.wrap_socket(plain, server_hostname="localhost")
            self._file = cast(BinaryIO, self._socket.makefile("rwb", buffering=0))
            self._line()
            self._command(f'a LOGIN "{login[0]}" "{login[1]}"')
            self._command("b SELECT INBOX")
            self._send("c IDLE")
            while not self._line().startswith("+"):
                continue
        except OSError as error:
            raise Trouble(f"IMAP on port {port}: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def next_exists(self, timeout_s: float) -> int:
        """How many messages INBOX holds, when the server says so next. Raises Trouble where it does not."""
        deadline = time.monotonic() + timeout_s
        try:
            while (left := deadline - time.monotonic()) > 0:
                self._socket.settimeout(left)
                words = self._line().split()
                if len(words) == 3 and words[0] == "*" and words[2] == "EXISTS":
                    return int(words[1])
        except OSError as error:
            raise Trouble(f"nothing was said in IDLE: {error}") from None
        raise Trouble(f"nothing arrived within {timeout_s:g} s")

    def _send(self, line: str) -> None:
        self._file.write(line.encode() + b"\r\n")

    def _command(self, line: str) -> None:
        self._send(line)
        tag = line.split()[0]
        while not (said := self._line()).startswith(tag + " "):
            continue
        if not said.startswith(f"{tag} OK"):
            raise Trouble(f"IMAP: {said}")

    def _line(self) -> str:
        line = self._file.readline()
        if not line:
            raise Trouble("the IMAP server hung up")
        return line.decode("utf-8", "replace").rstrip("\r\n")
