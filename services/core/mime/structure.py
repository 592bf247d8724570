"""The tree of parts of a message, as offsets into its octets."""

import re
from dataclasses import dataclass, field

from services.core.mime.headers import Header, header_end, parse_fields, value_of
from services.core.mime.params import (
    MESSAGE_RFC822,
    TEXT_PLAIN,
    ContentType,
    Disposition,
    Params,
    content_type,
    decode_params,
    disposition,
)

# Limits for one message. Beyond them the rest is opaque and `Message.limits_hit` says so.
MAX_NESTING = 100
MAX_PARTS = 1000
MAX_HEADER_LINES = 10_000
MAX_HEADER_OCTETS = 1 << 20
# Every nesting level looks for its boundary anew. Honest mail is read two or three times over; what needs more is made
# to burn time. A line that only looks like a delimiter costs as much as this many octets.
_SCANS = 32
_SCAN_FLOOR = 64 << 20
_FALSE_DELIMITER = 1000

_TOKEN = re.compile(rb"[^\s;()\"]+")
_LANGUAGE = re.compile(rb"[^\s,()\"]+")
_LANGUAGE_LENGTH = 1000
_CONTENT_FIELDS = frozenset(
    b"content-" + name for name in b"type transfer-encoding disposition id description md5 location language".split()
)
_OCTET_STREAM = ("application", "octet-stream")
_IDENTITY = frozenset({"7bit", "8bit", "binary"})


@dataclass(frozen=True, slots=True)
class Part:
    """One body part, or the message itself.

    `header_start`..`body_start` is its MIME header with the blank line, `body_start`..`body_end` its body. `children`
    are the parts of a multipart, or the one message inside a message/rfc822 (whose header starts at `body_start`).
    Field values are unfolded but otherwise as received; type, subtype and encoding are lower-case.
    """

    header_start: int
    body_start: int
    body_end: int
    fields: tuple[Header, ...]
    type: str
    subtype: str
    params: Params
    encoding: str
    id: bytes | None = None
    description: bytes | None = None
    md5: bytes | None = None
    disposition: Disposition | None = None
    language: tuple[bytes, ...] = ()
    location: bytes | None = None
    lines: int = 0
    children: tuple["Part", ...] = ()

    @property
    def is_multipart(self) -> bool:
        """Whether `children` are the parts of a multipart."""
        return self.type == "multipart"

    @property
    def is_message(self) -> bool:
        """Whether the one child is a message of its own (RFC 3501 6.4.5: numbering goes on inside)."""
        return self.type == "message" and bool(self.children)

    @property
    def size(self) -> int:
        """Octets of the body, encoded as it stands."""
        return self.body_end - self.body_start


@dataclass(frozen=True, slots=True)
class Message:
    """A parsed message: the octets, the root of its parts, and which limits it passed."""

    data: bytes = field(repr=False)
    root: Part
    limits_hit: tuple[str, ...] = ()

    @property
    def header_length(self) -> int:
        """Octets of the header, the blank line included."""
        return self.root.body_start


def _boundary(params: Params) -> bytes:
    for name, value in params:
        if name == "boundary":
            return value.rstrip()  # RFC 2046 5.1.1: never ends in white space
    if any(name.startswith("boundary*") for name, _ in params):
        return decode_params(params).get("boundary", "").encode().rstrip()
    return b""


class _Parser:
    """Recursive descent over offset ranges. A range never reaches beyond its parent's, so an outer delimiter always
    ends the inner parts (RFC 2046 5.1.2), and a missing last delimiter costs nothing."""

    __slots__ = ("budget", "data", "header_octets", "limits", "lines", "parts")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.lines = MAX_HEADER_LINES
        self.header_octets = MAX_HEADER_OCTETS
        self.parts = MAX_PARTS
        self.budget = _SCANS * len(data) + _SCAN_FLOOR
        self.limits: set[str] = set()

    def fields(self, start: int, end: int) -> tuple[Header, ...]:
        if end - start > self.header_octets:
            self.limits.add("header-octets")
            end = start + self.header_octets
        self.header_octets -= end - start
        fields, count = parse_fields(self.data, start, end, self.lines)
        self.lines -= count
        if self.lines == 0:
            self.limits.add("header-lines")
        return fields

    def may_open(self, size: int, depth: int) -> bool:
        """Whether a container of `size` octets may be looked into."""
        if depth >= MAX_NESTING:
            self.limits.add("nesting")
        elif self.parts <= 0:
            self.limits.add("parts")
        elif self.budget < size:
            self.limits.add("scans")
        else:
            self.budget -= size
            return True
        return False

    def part(self, start: int, end: int, default: ContentType, depth: int) -> Part:
        data = self.data
        body_start = header_end(data, start, end)
        fields = self.fields(start, body_start)
        ctype: ContentType | None = None
        encoding = "7bit"
        ident = description = md5 = location = None
        disp: Disposition | None = None
        language: tuple[bytes, ...] = ()
        for header in fields:
            name = header.name
            if name not in _CONTENT_FIELDS:
                continue
            value = value_of(data, header)
            if name == b"content-type":
                ctype = ctype or content_type(value)
            elif name == b"content-transfer-encoding":
                token = _TOKEN.search(value)
                encoding = token[0].decode("latin-1").lower() if token else encoding
            elif name == b"content-disposition":
                disp = disp or disposition(value)
            elif name == b"content-id":
                ident = ident or value
            elif name == b"content-description":
                description = description or value
            elif name == b"content-md5":
                md5 = md5 or value
            elif name == b"content-location":
                location = location or value
            elif name == b"content-language":
                language = language or tuple(_LANGUAGE.findall(value[:_LANGUAGE_LENGTH]))
        main, sub, params = ctype or default
        children: tuple[Part, ...] = ()
        lines = 0
        if main == "multipart":
            if self.may_open(end - body_start, depth):
                inner = MESSAGE_RFC822 if sub == "digest" else TEXT_PLAIN  # RFC 2046 5.1.5
                children = self.children(body_start, end, _boundary(params), inner, depth + 1)
            else:
                main, sub = _OCTET_STREAM
        elif main == "message" and sub in ("rfc822", "global"):
            # RFC 2046 5.2.1 allows no other encoding; an encoded message has no offsets to serve parts from.
            if encoding in _IDENTITY and self.may_open(end - body_start, depth):
                self.parts -= 1
                children = (self.part(body_start, end, TEXT_PLAIN, depth + 1),)
                lines = data.count(b"\n", body_start, end)
            else:
                main, sub = _OCTET_STREAM
        elif main == "text":
            lines = data.count(b"\n", body_start, end)
        return Part(
            start, body_start, end, fields, main, sub, params, encoding,
            ident, description, md5, disp, language, location, lines, children,
        )  # fmt: skip

    def children(self, start: int, end: int, boundary: bytes, default: ContentType, depth: int) -> tuple[Part, ...]:
        """The parts between the delimiters in a range; with no delimiter at all, one part that is the whole range, so
        that what a sender wrote can still be read (and RFC 9051 body-type-mpart has its one part)."""
        ranges = self.ranges(start, end, boundary) if boundary else []
        if not ranges:
            lines = self.data.count(b"\n", start, end)
            return (Part(start, start, end, (), "text", "plain", (), "7bit", lines=lines),)
        return tuple([self.part(first, last, default, depth) for first, last in ranges])

    def ranges(self, start: int, end: int, boundary: bytes) -> list[tuple[int, int]]:
        """Where the parts between the delimiter lines of a boundary begin and end (RFC 2046 5.1.1)."""
        data = self.data
        delimiter = b"\n--" + boundary
        length = len(delimiter)
        found: list[tuple[int, int]] = []
        opened = -1
        # The line end before the first delimiter may be that of the blank line behind the header.
        pos = data.find(delimiter, max(start - 1, 0), end)
        while pos >= 0:
            rest = pos + length
            line_end = data.find(b"\n", rest, end)
            after = end if line_end < 0 else line_end + 1
            # The rest of a delimiter line is short; a long one is not copied to find out that it is none.
            tail = data[rest : min(after, rest + 256)].strip()
            if tail in (b"", b"--"):
                if opened >= 0:
                    stop = pos - 1 if data[pos - 1 : pos] == b"\r" else pos
                    found.append((opened, max(stop, opened)))
                opened = -1
                if tail:
                    return found
                if self.parts <= 0:
                    self.limits.add("parts")
                    if found:  # the last part takes the rest in
                        found[-1] = (found[-1][0], end)
                    return found
                self.parts -= 1
                opened = after
                pos = data.find(delimiter, after - 1, end)
            else:
                self.budget -= _FALSE_DELIMITER
                if self.budget < 0:
                    self.limits.add("scans")
                    break
                pos = data.find(delimiter, rest, end)
        if opened >= 0:
            found.append((min(opened, end), end))
        return found


def parse(data: bytes | memoryview) -> Message:
    """The structure of any octets, taken as a message; never raises.

    Work and recursion are bounded by the limits of this module: a container beyond them is presented as one
    application/octet-stream, header lines beyond them are not read, and `limits_hit` holds any of "nesting", "parts",
    "header-lines", "header-octets", "scans".
    """
    octets = bytes(data)
    parser = _Parser(octets)
    root = parser.part(0, len(octets), TEXT_PLAIN, 0)
    return Message(octets, root, tuple(sorted(parser.limits)))
