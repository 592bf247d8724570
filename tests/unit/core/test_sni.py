"""Each domain's certificate to who asks for it; what is missing or broken costs that domain alone."""

import asyncio
import shutil
import ssl
from pathlib import Path

import structlog
import uvloop
from cryptography import x509
from structlog.testing import capture_logs

from services.core.sni import Certificates
from services.core.tls import LOOK_S, Certificate, ContextSource, ensure_dev_certificate, renewing


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def _shown(source: ContextSource, name: str) -> set[str]:
    """The names in the certificate that a client who asks for `name` is shown."""

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=source())
    client = ssl.create_default_context()
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    async with server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=name)
        shown = x509.load_der_x509_certificate(writer.get_extra_info("ssl_object").getpeercert(True))
        writer.close()
    return set(
        shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    )


def _secret(folder: Path, *names: str) -> Path:
    """A folder as Kubernetes mounts a secret of type tls."""
    made = ensure_dev_certificate(folder.parent / f"{folder.name}-made-{len(names)}", names)
    folder.mkdir(exist_ok=True)
    shutil.copy(made.cert, folder / "tls.crt")
    shutil.copy(made.key, folder / "tls.key")
    return folder


def _world(tmp_path: Path, clock: Clock, *folders: Path) -> Certificates:
    made = ensure_dev_certificate(tmp_path / "first", ["mail.first.test"])
    log = structlog.get_logger()
    return Certificates(Certificate(made.cert, made.key, log, clock=clock), folders, log, clock)


def test_a_client_is_shown_the_certificate_of_the_name_it_asks_for(tmp_path: Path) -> None:
    async def play() -> None:
        one, two = _secret(tmp_path / "one", "mail.one.test"), _secret(tmp_path / "two", "*.two.test")
        certificates = _world(tmp_path, Clock(), one, two)
        assert await _shown(certificates.context, "mail.one.test") == {"mail.one.test"}
        assert await _shown(certificates.context, "MAIL.TWO.test") == {"*.two.test"}
        assert await _shown(certificates.context, "a.mail.two.test") == {"mail.first.test"}
        assert await _shown(certificates.context, "mail.other.test") == {"mail.first.test"}

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as the services run
        runner.run(play())


async def test_a_certificate_that_comes_late_or_is_renewed_is_served_without_a_restart(tmp_path: Path) -> None:
    clock, folder = Clock(), tmp_path / "late"
    with capture_logs() as logs:
        certificates = _world(tmp_path, clock, folder)
        for _ in range(3):
            clock.now += LOOK_S
            assert await _shown(certificates.context, "mail.late.test") == {"mail.first.test"}
    assert [each["log_level"] for each in logs] == ["error"]
    _secret(folder, "mail.late.test")
    clock.now += LOOK_S
    assert await _shown(certificates.context, "mail.late.test") == {"mail.late.test"}
    _secret(folder, "imap.late.test", "pop.late.test")
    clock.now += LOOK_S
    assert await _shown(certificates.context, "pop.late.test") == {"imap.late.test", "pop.late.test"}
    assert await _shown(certificates.context, "mail.late.test") == {"mail.first.test"}
    (folder / "tls.crt").write_text("broken")
    clock.now += LOOK_S
    assert await _shown(certificates.context, "pop.late.test") == {"imap.late.test", "pop.late.test"}


async def test_a_server_that_keeps_its_context_is_moved_on_by_name_too(tmp_path: Path) -> None:
    clock = Clock()
    certificates = _world(tmp_path, clock, _secret(tmp_path / "one", "mail.one.test"))
    kept = renewing(certificates.context)
    for name in ("mail.one.test", "mail.first.test", "mail.one.test"):
        assert await _shown(lambda: kept, name) == {name}
    ensure_dev_certificate(tmp_path / "first", ["mail.first.test", "new.first.test"])
    clock.now += LOOK_S
    assert await _shown(lambda: kept, "new.first.test") == {"mail.first.test", "new.first.test"}


def test_the_first_to_end_is_what_is_shown_to_operators(tmp_path: Path) -> None:
    certificates = _world(tmp_path, Clock(), _secret(tmp_path / "one", "mail.one.test"))
    ends = [
        x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc.timestamp()
        for path in (tmp_path / "first" / "cert.pem", tmp_path / "one" / "tls.crt")
    ]
    assert certificates.ends_at() == min(ends)
