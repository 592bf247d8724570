"""Behind a proxy every door knows its true clients, and serves nobody who comes without saying who it is."""

import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from tests.flow.clients import letter, message_id

V1 = b"PROXY TCP4 192.0.2.7 192.0.2.25 4711 25\r\n"
V2 = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11" + struct.pack("!H4s4sHH", 12, b"\xc0\0\2\7", b"\xc0\0\2\x19", 4711, 25)
LOCAL = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
DOORS = {"smtp": b"220", "submission": b"220", "submissions": b"220", "imap": b"* O", "imaps": b"* O", "pop3": b"+OK"}


@pytest.fixture(scope="module")
def behind(new_platform: Callable[..., Any]) -> Any:
    platform = new_platform(
        {"POSTA_PROXY_NETWORKS": "127.0.0.0/8", "POSTA_DNS_SERVERS": "127.0.0.1:9", "POSTA_DNS_TIMEOUT_S": "1"}
    )
    platform.posta("up", "--detach")
    platform.state = platform.status()
    return platform


def connect(platform: Any, door: str, header: bytes) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", platform.ports[door]), timeout=20)
    sock.sendall(header)
    return platform.tls().wrap_socket(sock, server_hostname="localhost") if door.endswith("s") else sock


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("header", [V1, V2, LOCAL])
def test_every_door_hears_the_header(behind: Any, door: str, header: bytes) -> None:
    with connect(behind, door, header) as sock:
        assert sock.recv(3) == DOORS[door]


@pytest.mark.parametrize("door", DOORS)
def test_no_door_serves_without_it(behind: Any, door: str) -> None:
    with socket.create_connection(("127.0.0.1", behind.ports[door]), timeout=20) as sock:
        sock.sendall(b"\x16\x03\x01\x02\x00" * 4 if door.endswith("s") else b"EHLO client.test\r\nX LOGIN\r\n")
        with suppress(ConnectionResetError):
            assert sock.recv(1) == b""


def test_the_trace_names_the_true_client(behind: Any, bob: Any) -> None:
    message = letter("a@elsewhere.test", bob.address)
    with connect(behind, "smtp", V1) as sock, sock.makefile("rb") as heard:
        for line in (b"HELO mx.elsewhere.test", b"MAIL FROM:<a@elsewhere.test>", b"RCPT TO:<bob@posta.test>", b"DATA"):
            heard.readline()
            sock.sendall(line + b"\r\n")
        assert heard.readline()[:3] == b"354"
        sock.sendall(message + b"\r\n.\r\n")
        heard.readline()
    # Whatever became of it: there is no DNS to ask about its domain.
    behind.eventually(
        "the true client stands in the trace",
        lambda: any(
            "from 192.0.2.7" in step["detail"]
            for journey in behind.trace(message_id(message))
            for step in journey["steps"]
        ),
    )
