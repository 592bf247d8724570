"""A message as engines see it: parsed once, each part decoded at most once and only when somebody looks."""

from __future__ import annotations

import binascii
import threading
from collections.abc import Iterator

from services.contracts.v1 import mail_pb2 as pb
from services.core.mime.headers import find, value_of
from services.core.mime.params import param
from services.core.mime.section import decode_body
from services.core.mime.structure import Message, Part, parse
from services.filter.archive import Bounds, is_archive

INLINE_OCTETS = 128 * 1024
"""Larger messages are looked at in a thread; up to here nothing takes longer than a few milliseconds."""
MAX_ENCLOSED = 4
"""Encoded messages within encoded messages that are opened."""
MAX_LEAVES = 2000

_SLICE = 1024 * 1024


class Leaf:
    """A part that holds content: what a recipient could open or save."""

    __slots__ = ("_content", "_data", "_lock", "encoded", "names", "part", "type")

    def __init__(self, data: bytes, part: Part, lock: threading.Lock) -> None:
        self._data, self.part, self._lock = data, part, lock
        self._content: bytes | None = None
        self.type = f"{part.type}/{part.subtype}"
        self.names = _names(part)
        """Every file name it gives itself: Content-Disposition and Content-Type may differ."""
        self.encoded = part.encoding in ("base64", "quoted-printable")

    @property
    def content(self) -> bytes:
        """The octets without their transfer encoding. May take long for a large part: call it in a thread then."""
        if (content := self._content) is None:
            with self._lock:
                if (content := self._content) is None:
                    part = self.part
                    content = self._content = _decode(self._data[part.body_start : part.body_end], part.encoding)
        return content

    def head(self, length: int) -> bytes:
        """The first octets of `content`, without decoding all of it."""
        part = self.part
        if self._content is not None or part.size <= 4 * length + 1024:
            return self.content[:length]
        return decode_body(self._data[part.body_start : part.body_start + 4 * length], part.encoding)[:length]

    def contains(self, needle: bytes) -> bool:
        """Whether `needle` occurs in `content`."""
        if self.encoded:
            return needle in self.content
        return self._data.find(needle, self.part.body_start, self.part.body_end) >= 0

    def is_outermost(self, octets: bytes) -> bool:
        """Whether its offsets are those of the whole message, and not of an encoded message within."""
        return self._data is octets

    @property
    def is_archive(self) -> bool:
        """Whether `content` may be opened as a zip file."""
        if self.encoded:
            return is_archive(self.content, 0, len(self.content))
        return is_archive(self._data, self.part.body_start, self.part.body_end)


class Examined:
    """One message under examination. Engines may read it from several threads."""

    def __init__(self, request: pb.ScanRequest, octets: bytes) -> None:
        self.request = request
        self.octets = octets
        self.abandoned = False
        """Set when nobody waits any more; long work in threads looks at it."""
        self.message: Message = parse(octets)
        self.limits_hit: tuple[str, ...] = self.message.limits_hit
        self._lock = threading.Lock()
        self.leaves: tuple[Leaf, ...] = tuple(self._leaves(octets, self.message.root, 0, [MAX_LEAVES]))
        self.is_large = len(octets) > INLINE_OCTETS or any(leaf.is_archive for leaf in self.leaves)
        """Whether a look at every content may hold the loop for too long."""

    def header(self, name: bytes) -> str:
        """The first field of a lower-case name, unfolded, as text; empty where there is none."""
        field = find(self.message.root.fields, name)
        return value_of(self.octets, field).decode("utf-8", "replace") if field else ""

    @property
    def plain(self) -> bytes:
        """The message without those bodies that have to be decoded to mean anything."""
        pieces, at = [], 0
        for leaf in self.leaves:
            if leaf.encoded and leaf.is_outermost(self.octets):
                pieces.append(self.octets[at : leaf.part.body_start])
                at = leaf.part.body_end
        return b"".join([*pieces, self.octets[at:]]) if pieces else self.octets

    def bounds(self) -> Bounds:
        """A fresh allowance for unpacking, withdrawn when the examination is abandoned."""
        return Bounds(abandoned=lambda: self.abandoned)

    def _leaves(self, data: bytes, part: Part, depth: int, left: list[int]) -> Iterator[Leaf]:
        if part.children:
            for child in part.children:
                yield from self._leaves(data, child, depth, left)
            return
        if left[0] <= 0:
            self._hit("parts")
            return
        left[0] -= 1
        leaf = Leaf(data, part, self._lock)
        yield leaf
        if leaf.encoded and _encloses_message(data, leaf):
            # RFC 2046 5.2.1 allows no encoding here, yet clients open such a message: so do we.
            if depth >= MAX_ENCLOSED:
                self._hit("nesting")
                return
            inner = parse(leaf.content)
            for limit in inner.limits_hit:
                self._hit(limit)
            yield from self._leaves(inner.data, inner.root, depth + 1, left)

    def _hit(self, limit: str) -> None:
        if limit not in self.limits_hit:
            self.limits_hit = (*self.limits_hit, limit)


def _names(part: Part) -> tuple[str, ...]:
    names = []
    if part.disposition is not None and part.disposition.params:
        names.append(param(part.disposition.params, "filename"))
    if part.params:
        names.append(param(part.params, "name"))
    return tuple(dict.fromkeys(name for name in names if name))


def _encloses_message(data: bytes, leaf: Leaf) -> bool:
    if any(name.lower().endswith(".eml") for name in leaf.names):
        return True
    field = find(leaf.part.fields, b"content-type")
    return field is not None and value_of(data, field)[:8].lower() == b"message/"


def _decode(raw: bytes, encoding: str) -> bytes:
    """`decode_body` that lets other threads run: in slices, since decoders hold the interpreter while they work."""
    if len(raw) > _SLICE and encoding == "base64" and (content := _sliced_base64(raw)) is not None:
        return content
    if len(raw) > _SLICE and encoding == "quoted-printable":
        return b"".join(decode_body(lines, encoding) for lines in _whole_lines(raw))
    return decode_body(raw, encoding)


def _whole_lines(raw: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(raw):
        end = raw.find(b"\n", start + _SLICE) + 1 or len(raw)
        yield raw[start:end]
        start = end


def _sliced_base64(raw: bytes) -> bytes | None:
    """Clean base64, of any line length; None for what only the forgiving decoder can read."""
    out = []
    rest = b""
    ended = False
    for start in range(0, len(raw), _SLICE):
        digits = rest + raw[start : start + _SLICE].translate(None, b"\r\n\t ")
        if ended and digits:
            return None
        whole = len(digits) - len(digits) % 4
        rest = digits[whole:]
        try:
            out.append(binascii.a2b_base64(digits[:whole], strict_mode=True))
        except binascii.Error:
            return None
        ended = digits[:whole].endswith(b"=")
    return None if rest else b"".join(out)
