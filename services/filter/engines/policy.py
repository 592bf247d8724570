"""What is refused whoever sends it: attachments that run, shapes that no mail program makes. And GTUBE."""

from __future__ import annotations

import struct
import unicodedata
from collections.abc import Collection, Iterator

from services.core.settings import Filter
from services.filter.archive import walk
from services.filter.engine import Engine, Finding, Stage
from services.filter.examined import Examined, Leaf
from services.filter.heavy import looked_at

NAME = "policy"
# Generic test for unsolicited bulk email: what EICAR is for viruses. In two parts, so that this file is not spam.
GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*" + b"GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
GTUBE_SCORE = 10.0

_LIMITS = {
    "nesting": "parts nested too deep",
    "parts": "too many parts",
    "header-lines": "too many header lines",
    "header-octets": "header too long",
    "scans": "structure too complex",
}
_HEAD = 1024


def engine(settings: Filter) -> Engine:
    """The engine; never absent."""
    attachments = frozenset(each.lower().lstrip(".") for each in settings.refuse_extensions)

    def look(examined: Examined) -> list[Finding]:
        return list(findings(examined, attachments))

    return Engine(NAME, Stage.CONTENT, settings.engine_deadline_s, lambda examined: looked_at(examined, look))


def findings(examined: Examined, refused: Collection[str]) -> Iterator[Finding]:
    """Everything the policy has to say; blocks for as long as it takes. `refused`: extensions, lower-case, no dot."""
    for limit in examined.limits_hit:
        yield Finding(NAME, "MESSAGE_SHAPE", "policy", detail=_LIMITS.get(limit, limit))
    if any(leaf.part.type == "text" and leaf.contains(GTUBE) for leaf in examined.leaves):
        yield Finding(NAME, "GTUBE", "spam", GTUBE_SCORE)
    for leaf in examined.leaves:
        for name in leaf.names:
            if is_refused(name, refused):
                yield Finding(NAME, "ATTACHMENT_TYPE", "policy", detail=shown(name))
        if "exe" in refused and is_program(leaf.head(_HEAD)):
            yield Finding(NAME, "ATTACHMENT_TYPE", "policy", detail=f"{_label(leaf)} is a program")
    yield from _archived(examined, refused)


def _archived(examined: Examined, refused: Collection[str]) -> Iterator[Finding]:
    bounds = examined.bounds()
    for leaf in examined.leaves:
        if not leaf.is_archive:
            continue
        notes = set()
        for member in walk(leaf.content, bounds):
            program = "exe" in refused and member.content is not None and is_program(member.content[:_HEAD])
            if program or is_refused(member.name, refused):
                yield Finding(NAME, "ATTACHMENT_TYPE", "policy", detail=f"{shown(member.name)} in {_label(leaf)}")
                break
            notes.add(member.note)
        for note in sorted(notes - {""}):
            yield Finding(NAME, f"ARCHIVE_{note.upper()}", "policy", detail=_label(leaf))
        if bounds.exceeded:
            yield Finding(NAME, "ARCHIVE_LIMIT", "policy", detail=f"{_label(leaf)}: {bounds.exceeded}")
            return


def is_refused(name: str, refused: Collection[str]) -> bool:
    """Whether a file of this name would be run by a double click.

    The last extension counts, as the desktop sees it: "invoice.pdf.exe", "evil.exe. " and a name turned round by
    direction marks are what they end in.
    """
    visible = "".join(c for c in name if unicodedata.category(c) not in ("Cc", "Cf"))
    base = visible.replace("\\", "/").rstrip("/ .").rpartition("/")[2]
    _, dot, extension = base.rpartition(".")
    return bool(dot) and extension.strip().lower() in refused


def is_program(head: bytes) -> bool:
    """Whether a file that starts so is a DOS or Windows program, whatever it calls itself."""
    if not head.startswith(b"MZ") or len(head) < 64:
        return False
    # The new header's offset is at 0x3C; one that lies further on leaves the old stub's words as the sign.
    (at,) = struct.unpack_from("<I", head, 0x3C)
    return head[at : at + 4] == b"PE\0\0" or head[at : at + 2] in (b"NE", b"LE") or b" DOS " in head


def shown(name: str) -> str:
    """The name as a sender may be told: without directories and invisible characters."""
    visible = "".join(c for c in name if unicodedata.category(c) not in ("Cc", "Cf"))
    return visible.replace("\\", "/").rstrip("/").rpartition("/")[2][:80]


def _label(leaf: Leaf) -> str:
    return shown(leaf.names[0]) if leaf.names else leaf.type
