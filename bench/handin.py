"""A user who hands in a lot of mail: STARTTLS, AUTH, and one message after the other over a few connections."""

from __future__ import annotations

import asyncio
import base64
import random
import ssl
from collections.abc import Iterable, Iterator, Sequence
from email.utils import formatdate
from typing import NamedTuple

from bench.sides import PASSWORD, Side, user

SENDER = user(70)


class Letter(NamedTuple):
    """One message to one recipient."""

    recipient: str
    octets: bytes


def letters(number: int, domains: Sequence[str], size: int = 4096) -> list[Letter]:
    """So many different messages to recipients of these domains in turn."""
    tag = f"{random.getrandbits(48):x}"
    made = []
    for n in range(number):
        recipient = f"r{n:06d}@{domains[n % len(domains)]}"
        head = (
            f"From: <{SENDER}>\r\nTo: <{recipient}>\r\nSubject: message {n}\r\nDate: {formatdate()}\r\n"
            f"Message-ID: <{tag}.{n}@bench.test>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n"
        ).encode()
        line = b"the quick brown fox jumps over the lazy dog while the band plays on\r\n"
        made.append(Letter(recipient, head + line * max(1, (size - len(head)) // len(line))))
    return made


async def hand_in(side: Side, given: Iterable[Letter], connections: int = 10) -> None:
    """Hand in all of them. Raises RuntimeError for a refusal."""
    left = iter(given)
    await asyncio.gather(*(_connection(side.submission, left) for _ in range(connections)))


async def _connection(port: int, left: Iterator[Letter]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def hear(expected: bytes) -> None:
        while (line := await reader.readline())[3:4] == b"-":
            pass
        if not line.startswith(expected):
            raise RuntimeError(f"expected {expected!r}, heard {line!r}")

    async def say(octets: bytes, *expected: bytes) -> None:
        writer.write(octets)
        for each in expected:
            await hear(each)

    trust = ssl.create_default_context()
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    await hear(b"220")
    await say(b"EHLO bench.example.org\r\n", b"250")
    await say(b"STARTTLS\r\n", b"220")
    await writer.start_tls(trust)
    await say(b"EHLO bench.example.org\r\n", b"250")
    login = base64.b64encode(f"\0{SENDER}\0{PASSWORD}".encode())
    await say(b"AUTH PLAIN " + login + b"\r\n", b"235")
    for letter in left:
        envelope = f"MAIL FROM:<{SENDER}>\r\nRCPT TO:<{letter.recipient}>\r\nDATA\r\n"
        await say(envelope.encode(), b"250", b"250", b"354")
        await say(letter.octets + b".\r\n", b"250")
    await say(b"QUIT\r\n", b"221")
    writer.close()
