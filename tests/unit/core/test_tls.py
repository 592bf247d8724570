"""Certificates are renewed under running doors; a broken file never takes the place of a good one."""

import asyncio
import shutil
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog
from cryptography import x509
from structlog.testing import capture_logs

from services.core.tls import LOOK_S, BadCertificate, Certificate, ensure_dev_certificate, server_context


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def _served(context: ssl.SSLContext, ca: Path, version: ssl.TLSVersion | None = None) -> bytes:
    """The serial number that a client who trusts `ca` is shown by a server with `context`."""

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    client = ssl.create_default_context(cafile=str(ca))
    if version is not None:
        client.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        client.maximum_version = version
    async with server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname="localhost")
        shown: bytes = writer.get_extra_info("ssl_object").getpeercert(True)
        writer.close()
    return shown


async def test_a_client_that_trusts_the_dev_ca_connects(tmp_path: Path) -> None:
    made = ensure_dev_certificate(tmp_path, ["localhost", "127.0.0.1"])
    await _served(server_context(made.cert, made.key), made.ca)


async def test_tls_1_1_is_refused(tmp_path: Path) -> None:
    made = ensure_dev_certificate(tmp_path, ["localhost"])
    with pytest.warns(DeprecationWarning, match="TLSv1_1"), pytest.raises((ssl.SSLError, ConnectionError)):
        await _served(server_context(made.cert, made.key), made.ca, ssl.TLSVersion.TLSv1_1)


async def test_a_renewed_certificate_is_served_without_a_restart(tmp_path: Path) -> None:
    clock = Clock()
    made = ensure_dev_certificate(tmp_path, ["localhost"])
    certificate = Certificate(made.cert, made.key, structlog.get_logger(), clock=clock)
    before = await _served(certificate.context(), made.ca)
    ensure_dev_certificate(tmp_path, ["localhost", "mail.posta.test"])
    assert await _served(certificate.context(), made.ca) == before
    clock.now += LOOK_S
    assert await _served(certificate.context(), made.ca) != before


async def test_a_broken_file_keeps_the_old_certificate_and_is_told_once(tmp_path: Path) -> None:
    clock = Clock()
    made = ensure_dev_certificate(tmp_path / "a", ["localhost"])
    other = ensure_dev_certificate(tmp_path / "b", ["localhost"])
    with capture_logs() as logs:
        certificate = Certificate(made.cert, made.key, structlog.get_logger(), clock=clock)
        good = certificate.context()
        # As a renewal that has written one of its two files.
        shutil.copy(other.cert, made.cert)
        for _ in range(3):
            clock.now += LOOK_S
            assert certificate.context() is good
        assert [each["log_level"] for each in logs] == ["error"]
        shutil.copy(other.key, made.key)
        clock.now += LOOK_S
        assert certificate.context() is not good
        assert [each["log_level"] for each in logs] == ["error", "info"]
    made.cert.unlink()
    clock.now += LOOK_S
    await _served(certificate.context(), other.ca)


def test_the_first_certificate_must_be_good(tmp_path: Path) -> None:
    with pytest.raises(BadCertificate, match=r"nothing\.pem"):
        Certificate(tmp_path / "nothing.pem", tmp_path / "nothing.key", structlog.get_logger())


def test_the_dev_certificate_is_made_once(tmp_path: Path) -> None:
    made = ensure_dev_certificate(tmp_path, ["localhost"])
    before = [path.read_bytes() for path in made]
    assert ensure_dev_certificate(tmp_path, ["localhost"]) == made
    assert [path.read_bytes() for path in made] == before
    for key in (made.key, tmp_path / "ca-key.pem"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_the_leaf_is_renewed_by_the_same_ca(tmp_path: Path) -> None:
    made = ensure_dev_certificate(tmp_path, ["localhost"])
    ca, leaf = made.ca.read_bytes(), made.cert.read_bytes()
    ensure_dev_certificate(tmp_path, ["localhost"], datetime.now(UTC) + timedelta(days=360))
    assert made.ca.read_bytes() == ca
    assert made.cert.read_bytes() == leaf
    later = datetime.now(UTC) + timedelta(days=380)
    ensure_dev_certificate(tmp_path, ["localhost"], later)
    assert made.ca.read_bytes() == ca
    renewed = x509.load_pem_x509_certificate(made.cert.read_bytes())
    assert renewed.not_valid_after_utc > later + timedelta(days=300)
