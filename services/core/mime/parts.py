"""The part table: what it takes to slice a stored message without parsing it again."""

from collections.abc import Mapping
from typing import NamedTuple

from services.core.mime.params import param
from services.core.mime.structure import Message, Part

_VERSION = b"1"
_CHARSET_LENGTH = 80


class PartEntry(NamedTuple):
    """Offsets and kind of one part. `text_start` is where the body of the message inside begins, -1 for other parts."""

    header_start: int
    body_start: int
    body_end: int
    text_start: int
    type: str
    subtype: str
    encoding: str
    charset: str

    @property
    def is_message(self) -> bool:
        """Whether part numbering goes on inside (message/rfc822)."""
        return self.text_start >= 0


# Keys are IMAP part paths ("1.2"); "" is the message itself.
PartTable = Mapping[str, PartEntry]


def _row(part: Part, path: str) -> str:
    """One line, fields divided by tabs. White space occurs in no type and no encoding (`params`, `structure`)."""
    charset = ""
    if part.type == "text" and part.params:
        charset = "".join((param(part.params, "charset") or "")[:_CHARSET_LENGTH].split())
    text_start = part.children[0].body_start if part.is_message else -1
    return (
        f"{path}\t{part.header_start}\t{part.body_start}\t{part.body_end}\t{text_start}"
        f"\t{part.type}\t{part.subtype}\t{part.encoding}\t{charset}"
    )


def _collect(part: Part, path: str, rows: list[str]) -> None:
    """Rows of `part` standing at `path`, and of everything inside (RFC 9051 6.4.5.1 numbering)."""
    rows.append(_row(part, path))
    if part.is_message:
        inner = part.children[0]
        if not inner.is_multipart:
            _collect(inner, path + ".1", rows)
            return
        part = inner
    if part.is_multipart:
        prefix = path + "." if path else ""
        for number, child in enumerate(part.children, start=1):
            _collect(child, f"{prefix}{number}", rows)


def encode_parts(msg: Message) -> bytes:
    """The part table of a message as compact octets, first of which is the version."""
    rows: list[str] = []
    # Without parts the message is its own part 1, and the one row serves for both.
    _collect(msg.root, "" if msg.root.is_multipart else "1", rows)
    return _VERSION + "\n".join(rows).encode("utf-8", "replace")


def decode_parts(encoded: bytes) -> PartTable:
    """The part table that `encode_parts` wrote. ValueError for octets of another version or none."""
    if encoded[:1] != _VERSION:
        raise ValueError(f"part table of unknown version {encoded[:1]!r}")
    table: dict[str, PartEntry] = {}
    for row in encoded[1:].decode().split("\n"):
        path, header, start, end, text, main, sub, encoding, charset = row.split("\t")
        table[path] = PartEntry(int(header), int(start), int(end), int(text), main, sub, encoding, charset)
    if "" not in table:
        # A message/rfc822 at the top: HEADER and TEXT of "" are of the outer one, those of "1" of the one inside.
        table[""] = table["1"]._replace(text_start=-1)
    return table
