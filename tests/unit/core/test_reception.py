"""The way in of IMAP and POP, as of SMTP: what proxies say, who is believed, who is one too many."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from services.core.crowd import Limits
from services.core.proxy import FromProxies
from services.core.stream import Listener, Stream
from services.core.telemetry import logger
from services.core.tls import ensure_dev_certificate, server_context

LOCAL = FromProxies([ip_network("127.0.0.0/8")])
ELSEWHERE = FromProxies([ip_network("192.0.2.0/24")])
_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def v2(command: int, family: int, addresses: bytes, more: bytes = b"") -> bytes:
    return _SIGNATURE + struct.pack("!BBH", 0x20 | command, family, len(addresses + more)) + addresses + more


V4 = struct.pack("!4s4sHH", b"\xc0\0\2\7", b"\xc0\0\2\x19", 4711, 143)
V6 = struct.pack("!16s16sHH", b"\x20\x01\x0d\xb8" + bytes(11) + b"\7", bytes(15) + b"\1", 4711, 143)


@asynccontextmanager
async def greeting(**more: Any) -> AsyncIterator[Listener]:
    """A door that says who it takes the peer for, and what it hears from it."""

    async def serve(stream: Stream) -> None:
        stream.write(f"{stream.peer} ".encode())
        stream.write(await stream.read(10))

    listener = Listener(serve, logger("test"), refusal=b"full", **more)
    await listener.listen("127.0.0.1", 0)
    try:
        yield listener
    finally:
        await listener.close(0)


async def told(listener: Listener, octets: bytes) -> bytes:
    """What a peer that says this hears; "" for one that is not served."""
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(octets)
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("header", "peer"),
    [
        (b"PROXY TCP4 192.0.2.7 192.0.2.25 4711 143\r\n", b"192.0.2.7"),
        (b"PROXY TCP6 2001:db8::7 ::1 4711 143\r\n", b"2001:db8::7"),
        (b"PROXY UNKNOWN\r\n", b"127.0.0.1"),
        (v2(1, 0x11, V4), b"192.0.2.7"),
        (v2(1, 0x21, V6), b"2001:db8::7"),
        (v2(1, 0x11, V4, b"\x04\x00\x04abcd"), b"192.0.2.7"),  # with a TLV behind
        (v2(0, 0x00, b""), b"127.0.0.1"),  # LOCAL: the proxy itself, looking whether we are well
        (v2(0, 0x11, V4), b"127.0.0.1"),
    ],
)
async def test_a_proxy_is_believed(header: bytes, peer: bytes) -> None:
    async with greeting(proxy=LOCAL) as listener:
        assert await told(listener, header + b"hello") == peer + b" hello"


@pytest.mark.parametrize(
    "octets",
    [
        b"hello\r\n", b"", b"PROXY\r\n", b"PROXY TCP4 192.0.2.7\r\n", b"PROXY TCP4 a b c d\r\n",
        b"PROXY TCP4 2001:db8::7 ::1 4711 143\r\n", b"PROXY TCP4 192.0.2.7 192.0.2.25 99999 143\r\n",
        b"PROXY TCP4 " + b"1" * 500, _SIGNATURE[:8] + b"hello\r\n" * 9, v2(7, 0x11, V4), v2(1, 0x11, V4[:5]),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", _SIGNATURE + b"\x31\x11\x00\x0c" + V4,
    ],
)  # fmt: skip
async def test_a_proxy_that_does_not_say_who_it_speaks_for_is_not_served(octets: bytes) -> None:
    async with greeting(proxy=LOCAL) as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(octets)
        writer.write_eof()
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize("header", [b"PROXY TCP4 192.0.2.7 192.0.2.25 4711 143\r\n", v2(1, 0x11, V4)])
async def test_who_is_no_proxy_is_not_believed(header: bytes) -> None:
    """The header is then what it looks like: rubbish from the peer, for the protocol to refuse."""
    for proxy in (ELSEWHERE, None):
        async with greeting(proxy=proxy) as listener:
            assert await told(listener, header) == b"127.0.0.1 " + header


async def test_the_header_stands_in_front_of_tls(tmp_path: Path) -> None:
    made = ensure_dev_certificate(tmp_path, ["localhost"])
    context = server_context(made.cert, made.key)
    async with greeting(proxy=LOCAL, tls=lambda: context, implicit_tls=True) as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(v2(1, 0x11, V4))
        await writer.start_tls(ssl.create_default_context(cafile=str(made.ca)), server_hostname="localhost")
        writer.write(b"hello")
        assert await reader.readexactly(15) == b"192.0.2.7 hello"
        writer.close()


def of(host: str) -> bytes:
    return f"PROXY TCP4 {host} 192.0.2.25 4711 143\r\n".encode()


async def test_limits_are_those_of_the_true_client() -> None:
    async with greeting(proxy=LOCAL, limits=Limits(per_ip=1, per_network=2)) as listener:
        held = []
        for host in ("192.0.2.7", "192.0.2.8"):
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            writer.write(of(host))
            assert await reader.readuntil(b" ") == host.encode() + b" "
            held.append(writer)
        assert await told(listener, of("192.0.2.7")) == b"full"
        assert await told(listener, of("192.0.2.9")) == b"full"
        assert await told(listener, of("198.51.100.1") + b"hello") == b"198.51.100.1 hello"
        for writer in held:
            writer.close()


async def test_a_network_that_comes_too_fast_is_told_so() -> None:
    async with greeting(proxy=LOCAL, limits=Limits(per_minute=3)) as listener:
        answers = [await told(listener, of(f"192.0.2.{n}") + b"hello") for n in range(8)]
        # A minute may have begun anew in between. Who has spoken already may be cut off before it hears why.
        assert sum(answer in (b"full", b"") for answer in answers) >= 2
        assert answers[0] == b"192.0.2.0 hello"


async def test_one_too_many_in_all() -> None:
    async with greeting(max_connections=1) as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        await reader.readuntil(b" ")
        assert await told(listener, b"") == b"full"
        writer.close()


async def test_what_stands_between_sees_a_silent_connection_in_use() -> None:
    def option(level: int, name: int) -> int:
        return int(served.get_extra_info("socket").getsockopt(level, name))

    async with greeting() as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        await reader.readuntil(b" ")
        (served,) = (stream._transport for stream in listener.streams)
        assert served is not None
        assert option(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert option(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) < 300
        writer.close()
