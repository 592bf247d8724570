"""Certificates: served, watched, and for development made.

Listeners are given `Certificate.context`, a plain callable, and ask it for each connection: a renewed file is served to
the next client without a restart, and a broken one never replaces a good one.
"""

import os
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from services.core.telemetry import Logger

LOOK_S = 5.0
CA_DAYS, LEAF_DAYS, RENEW_DAYS = 3650, 397, 30

ContextSource = Callable[[], ssl.SSLContext]


Tls = Callable[[], ssl.SSLContext]
"""What gives a door the context for its next connection."""


class BadCertificate(OSError):
    """The files cannot be served; the text names them."""


class DevCertificate(NamedTuple):
    """Where a development certificate lies: the chain and its key for the server, the CA for clients to trust."""

    cert: Path
    key: Path
    ca: Path


def server_context(cert: Path, key: Path, alpn: Sequence[str] = ()) -> ssl.SSLContext:
    """A context that serves `cert` (PEM, leaf first) over TLS 1.2 and 1.3. Raises BadCertificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if alpn:
        context.set_alpn_protocols(list(alpn))
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ValueError) as error:
        raise BadCertificate(f"certificate {cert} with key {key}: {error}") from error
    return context


class Certificate:
    """A certificate on disk and the context that serves it. Raises BadCertificate when the first look finds none."""

    def __init__(
        self,
        cert: Path,
        key: Path,
        log: Logger,
        alpn: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cert, self._key, self._log, self._alpn, self._clock = cert, key, log, alpn, clock
        self._seen = self._look()
        self._context = server_context(cert, key, alpn)
        self._leaf = _shown(cert)
        self._next_look = clock() + LOOK_S

    def ends_at(self) -> float:
        """When what is served now ends, as a Unix timestamp; 0 when that cannot be read. Looks at the files as well."""
        self.context()
        return self._leaf.ends.timestamp()

    def names(self) -> frozenset[str]:
        """The names that what is served now is good for. Looks at the files as well."""
        self.context()
        return self._leaf.names

    def context(self) -> ssl.SSLContext:
        """The context for a new connection. Looks at the files at most every five seconds."""
        now = self._clock()
        if now >= self._next_look:
            self._next_look = now + LOOK_S
            if (seen := self._look()) != self._seen:
                # Remembered whether it is good or not: what is broken is said once, and tried again when it changes.
                self._seen = seen
                self._reload()
        return self._context

    def _reload(self) -> None:
        try:
            self._context = server_context(self._cert, self._key, self._alpn)
        except BadCertificate as error:
            self._log.error("certificate not reloaded, the old one is served on", reason=str(error))
        else:
            self._leaf = _shown(self._cert)
            self._log.info("certificate reloaded", path=str(self._cert))

    def _look(self) -> tuple[tuple[int, int, int], ...]:
        # The inode too: a mounted secret is replaced by a link, and the new file may carry the old one's time.
        return tuple(_mark(path) for path in (self._cert, self._key))


class Leaf(NamedTuple):
    """What a certificate says to clients: the names it is good for, and until when."""

    names: frozenset[str]
    ends: datetime

    def is_for(self, host: str) -> bool:
        """Whether a client that has come to `host` believes it (RFC 9525 6.3: a star stands for one label)."""
        return bool(self.names & {host.lower(), "*." + host.lower().partition(".")[2]})


def leaf(cert: Path, key: Path) -> Leaf:
    """The certificate that these files make a server show. Raises BadCertificate."""
    server_context(cert, key)
    return _shown(cert)


def renewing(newest: Tls) -> ssl.SSLContext:
    """A context for servers that keep the one they began with: each handshake moves on to the newest certificate."""
    context = newest()
    if context.sni_callback is not None:
        return context  # it chooses by name, among the newest

    def renew(tls: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        tls.context = newest()

    context.sni_callback = renew
    return context


def ensure_dev_certificate(folder: Path, hostnames: Iterable[str], now: datetime | None = None) -> DevCertificate:
    """A certificate for `hostnames` (names or addresses) and the CA that signed it, in `folder`.

    Both are made on the first call and found again later; the leaf is renewed a month before it ends and when a name is
    missing from it, by the same CA, so clients that trust it go on. Keys have mode 0600.
    """
    at = now or datetime.now(UTC)
    names = list(dict.fromkeys(hostnames))
    folder.mkdir(parents=True, exist_ok=True)
    files = DevCertificate(folder / "cert.pem", folder / "key.pem", folder / "ca.pem")
    ca_key_path = folder / "ca-key.pem"
    ca = _read(files.ca)
    if ca is None or not ca_key_path.exists() or _ends_soon(ca, at):
        ca_key = ec.generate_private_key(ec.SECP256R1())
        ca = _make_ca(ca_key, at)
        _write(ca_key_path, _pem(ca_key), 0o600)
        _write(files.ca, ca.public_bytes(serialization.Encoding.PEM), 0o644)
    leaf = _read(files.cert)
    if (
        leaf is None
        or not files.key.exists()
        or _ends_soon(leaf, at)
        or leaf.issuer != ca.subject
        or not set(names) <= _names(leaf)
    ):
        signer = serialization.load_pem_private_key(ca_key_path.read_bytes(), None)
        if not isinstance(signer, ec.EllipticCurvePrivateKey):
            raise BadCertificate(f"{ca_key_path}: expected an elliptic curve key")
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = _make_leaf(key, ca, signer, names, at)
        _write(files.key, _pem(key), 0o600)
        chain = b"".join(each.public_bytes(serialization.Encoding.PEM) for each in (leaf, ca))
        _write(files.cert, chain, 0o644)
    return files


def _mark(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_ino, found.st_size)


def _read(path: Path) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return None


def _shown(path: Path) -> Leaf:
    """What the file says; where it cannot be read, that it is good for nothing any more."""
    found = _read(path)
    if found is None:
        return Leaf(frozenset(), datetime.fromtimestamp(0, UTC))
    try:
        return Leaf(frozenset(name.lower() for name in _names(found)), found.not_valid_after_utc)
    except x509.ExtensionNotFound:
        return Leaf(frozenset(), found.not_valid_after_utc)


def _write(path: Path, content: bytes, mode: int) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    # Created with its mode, never widened: a key is at no moment readable to others.
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    fresh.replace(path)


def _ends_soon(certificate: x509.Certificate, at: datetime) -> bool:
    return certificate.not_valid_after_utc - at < timedelta(days=RENEW_DAYS)


def _names(leaf: x509.Certificate) -> set[str]:
    found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(found.get_values_for_type(x509.DNSName)) | {
        str(each) for each in found.get_values_for_type(x509.IPAddress)
    }


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _builder(subject: x509.Name, issuer: x509.Name, at: datetime, days: int) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        # A client whose clock is behind shall not refuse what was made a moment ago.
        .not_valid_before(at - timedelta(hours=1))
        .not_valid_after(at + timedelta(days=days))
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _make_ca(key: ec.EllipticCurvePrivateKey, at: datetime) -> x509.Certificate:
    # The serial in the name keeps two machines' CAs apart in a client that trusts both.
    label = f"Posta development CA {x509.random_serial_number() & 0xFFFFFFFF:08x}"
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, label)])
    return (
        _builder(name, name, at, CA_DAYS)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _make_leaf(
    key: ec.EllipticCurvePrivateKey,
    ca: x509.Certificate,
    signer: ec.EllipticCurvePrivateKey,
    names: list[str],
    at: datetime,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    return (
        _builder(subject, ca.subject, at, LEAF_DAYS)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
