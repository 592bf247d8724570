"""Messages to be examined, and the ways to hide something in them."""

import base64
import io
import struct
import zipfile
import zlib

from services.contracts.v1 import mail_pb2 as pb
from services.filter.examined import Examined

# In halves, so that no scanner takes this file for what it tests.
EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
PROGRAM = b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0" + bytes(200)

HEAD = b"From: alice@posta.test\r\nTo: bob@posta.test\r\nMessage-ID: <one@posta.test>\r\nMIME-Version: 1.0\r\n"
PLAIN = HEAD + b"Subject: lunch\r\n\r\nAt noon?\r\n"


def part(content: bytes, name: str = "", kind: str = "application/octet-stream", encoding: str = "base64") -> bytes:
    head = f"Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n"
    if name:
        head += f'Content-Disposition: attachment; filename="{name}"\r\n'
    body = base64.encodebytes(content).replace(b"\n", b"\r\n") if encoding == "base64" else content
    return head.encode() + b"\r\n" + body


def letter(*parts: bytes) -> bytes:
    head = HEAD + b'Content-Type: multipart/mixed; boundary="=b="\r\n\r\n'
    return (
        head + b"".join(b"--=b=\r\n" + each + b"\r\n" for each in (part(b"Hi", kind="text/plain"), *parts)) + b"--=b=--"
    )


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def local_only(name: str, content: bytes) -> bytes:
    """A deflated member that no central directory mentions and whose sizes are lies."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(content) + packer.flush()
    return struct.pack("<4sHHHIIIIHH", b"PK\x03\x04", 20, 0, 8, 0, 0, 3, 7, len(name), 0) + name.encode() + packed


def examined(octets: bytes) -> Examined:
    return Examined(pb.ScanRequest(size=len(octets)), octets)
