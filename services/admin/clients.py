"""As much of a mail client as a probe needs, from the standard library; it can stand in for a proxy."""

from __future__ import annotations

import http.client
import imaplib
import poplib
import smtplib
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from services.core.settings import Probe

STAND_IN = "192.0.2.77"  # RFC 5737: no address of anybody's, so whoever records it took it from the header


class Failed(Exception):
    """A step did not go as it must; the text says what was seen."""


def ends(door: str) -> tuple[str, int]:
    """Host and port of "host:port"."""
    host, _, port = door.rpartition(":")
    return host.strip("[]"), int(port)


def addresses(door: str) -> list[str]:
    """Every address of the door's host: of a headless Service, each pod's."""
    host, port = ends(door)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


@dataclass(frozen=True, slots=True)
class Way:
    """How doors are reached: with which trust, under which name, in front of a proxy or not."""

    server_name: str
    ca: Path | None
    proxy: bool
    timeout_s: float = 30.0

    @classmethod
    def of(cls, probe: Probe, hostname: str) -> Way:
        return cls(hostname, probe.ca, probe.proxy)

    def connect(self, host: str, port: int) -> socket.socket:
        """A plain connection, behind the PROXY header where one is said. Raises OSError."""
        sock = socket.create_connection((host, port), self.timeout_s)
        if self.proxy:
            sock.sendall(f"PROXY TCP4 {STAND_IN} 192.0.2.1 40000 {port}\r\n".encode())
        return sock

    def secured(self, host: str, port: int) -> ssl.SSLSocket:
        """A connection under TLS from its first octet. Raises OSError."""
        context = ssl.create_default_context(cafile=str(self.ca) if self.ca else None)
        return context.wrap_socket(self.connect(host, port), server_hostname=self.server_name)

    def seen_as(self, sock: socket.socket) -> str:
        """The address that the far side must record for this connection."""
        return STAND_IN if self.proxy else str(sock.getsockname()[0])


@dataclass(frozen=True, slots=True)
class Api:
    """The admin API behind the door `host:port`, under TLS."""

    way: Way
    door: str
    token: str

    def ask(self, verb: str, path: str) -> tuple[int, str]:
        """Status and body of one request. Raises `Failed` where nobody answers."""
        try:
            client = http.client.HTTPConnection("door", timeout=self.way.timeout_s)
            client.sock = self.way.secured(*ends(self.door))
            try:
                client.request(verb, path, headers={"Authorization": f"Bearer {self.token}"})
                answer = client.getresponse()
                return answer.status, answer.read().decode("utf-8", "replace")
            finally:
                client.close()
        except (http.client.HTTPException, OSError) as error:
            raise Failed(f"the admin API at {self.door}: {error}") from None


class _Smtp(smtplib.SMTP):
    def __init__(self, sock: socket.socket) -> None:
        self._given = sock
        super().__init__("door", 0, timeout=sock.gettimeout() or 30.0)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return self._given


class _Imap(imaplib.IMAP4):
    def __init__(self, sock: socket.socket) -> None:
        self._given = sock
        super().__init__("door")

    def _create_socket(self, timeout: float | None) -> socket.socket:
        return self._given


class _Pop(poplib.POP3):
    def __init__(self, sock: socket.socket) -> None:
        self._given = sock
        super().__init__("door")

    def _create_socket(self, timeout: float | None) -> socket.socket:
        return self._given


@contextmanager
def smtp(sock: socket.socket) -> Iterator[smtplib.SMTP]:
    """An SMTP session on the connection, greeted. What it raises leaves as `Failed`."""
    try:
        client = _Smtp(sock)
        client.ehlo()
        yield client
        client.quit()
    except (smtplib.SMTPException, OSError) as error:
        raise Failed(f"SMTP: {error}") from None
    finally:
        sock.close()


@contextmanager
def imap(sock: socket.socket, login: tuple[str, str]) -> Iterator[imaplib.IMAP4]:
    """A logged-in IMAP session with INBOX open. What it raises leaves as `Failed`."""
    try:
        client = _Imap(sock)
        client.login(*login)
        client.select("INBOX")
        yield client
        client.logout()
    except (imaplib.IMAP4.error, OSError) as error:
        raise Failed(f"IMAP: {error}") from None
    finally:
        sock.close()


@contextmanager
def pop(sock: socket.socket, login: tuple[str, str]) -> Iterator[poplib.POP3]:
    """A logged-in POP session. What it raises leaves as `Failed`."""
    try:
        client = _Pop(sock)
        client.user(login[0])
        client.pass_(login[1])
        yield client
        client.quit()
    except (poplib.error_proto, OSError) as error:
        raise Failed(f"POP: {error}") from None
    finally:
        sock.close()
