"""EICAR in every wrapping, and nothing in what is none."""

import struct
import threading

import pytest

from services.core.settings import Filter
from services.filter.engines import configured
from services.filter.engines.virus_signatures import _WINDOW, NAME, Signatures
from tests.unit.filter.letters import EICAR, HEAD, PLAIN, examined, letter, local_only, part, zipped

SIGNATURES = Signatures()


def symbols(octets: bytes) -> set[str]:
    return {finding.symbol for finding in SIGNATURES.look(examined(octets))}


@pytest.mark.parametrize(
    "octets",
    [
        HEAD + b"\r\n" + EICAR + b"\r\n",
        letter(part(EICAR, "eicar.com")),
        letter(part(EICAR, "eicar.com", encoding="7bit")),
        letter(part(EICAR.replace(b"=", b"=3D").replace(b"X5O", b"=585=\r\nO"), encoding="quoted-printable")),
        letter(part(zipped(("eicar.com", EICAR)), "a.zip")),
        letter(part(zipped(("b.zip", zipped(("c.zip", zipped(("e", EICAR)))))), "a.zip")),
        letter(part(local_only("e", EICAR) + zipped(("shown", b"nothing")), "a.zip")),
        letter(part(letter(part(EICAR)), kind="message/rfc822", encoding="7bit")),
        letter(part(letter(part(zipped(("e", EICAR)), "z.zip")), kind="message/rfc822")),
        letter(part(bytes(_WINDOW - 30) + EICAR + bytes(100), "large.bin")),
    ],
    ids=["body", "base64", "7bit", "qp", "zip", "zip-in-zip", "hidden", "rfc822", "encoded-rfc822-zip", "window-edge"],
)
def test_eicar_is_known(octets: bytes) -> None:
    assert symbols(octets) == {"EICAR-Test-Signature"}


def test_a_thread_of_its_own_finds_the_same() -> None:
    seen: list[set[str]] = []
    thread = threading.Thread(target=lambda: seen.append(symbols(letter(part(EICAR)))))
    thread.start()
    thread.join()
    assert seen == [{"EICAR-Test-Signature"}]


def test_harmless_mail_is_harmless() -> None:
    assert symbols(PLAIN) == set()
    assert symbols(letter(part(zipped(("a.txt", b"hello")), "a.zip"))) == set()
    assert symbols(letter(part(b"powershell -enc http://example.org", "notes.txt"))) == set()


def test_droppers() -> None:
    shortcut = struct.pack("<II", 0x4C, 0x21401) + bytes(60) + "powershell.exe -enc AAAA".encode("utf-16-le")
    assert symbols(letter(part(shortcut, "invoice.lnk"))) == {"Dropper.Shortcut.Shell"}
    rtf = rb"{\rtf1{\object\objupdate\objdata 0105" + b"Equation.3".hex().encode() + b"}}"
    assert symbols(letter(part(rtf, "invoice.doc"))) == {"Exploit.RTF.Equation"}


def test_an_archive_past_a_bound_is_not_passed_in_silence() -> None:
    data = b"x"
    for _ in range(8):
        data = zipped(("n.zip", data))
    (finding,) = SIGNATURES.look(examined(letter(part(data, "a.zip"))))
    assert (finding.symbol, finding.kind) == ("ARCHIVE_LIMIT", "policy")


def test_clamd_takes_its_place() -> None:
    assert NAME in [engine.name for engine in configured(Filter())]
    assert [engine.name for engine in configured(Filter(clamd=("127.0.0.1:3310",)))] == ["virus_clamd", "policy"]


def test_optional_engines_must_exist() -> None:
    assert [e.required for e in configured(Filter(), ["policy"])] == [True, False]
    with pytest.raises(ValueError, match="no such engine: rspamd"):
        configured(Filter(), ["rspamd"])
