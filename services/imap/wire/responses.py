"""What the server says, as values. `encode` turns them into octets.

A command's handler yields these. `Ok`, `No` and `Bad` end the command and carry its tag unless they are `untagged`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Code:
    """A response code: `Code("UIDNEXT", "12")` is `[UIDNEXT 12]`. `text` is wire text, ready to send (RFC 9051 7.1)."""

    name: str
    text: str | bytes = ""


@dataclass(frozen=True, slots=True)
class Ok:
    """Done; or, untagged, something to know."""

    text: str
    code: Code | None = None
    untagged: bool = False


@dataclass(frozen=True, slots=True)
class No:
    """Understood and refused; or, untagged, a warning."""

    text: str
    code: Code | None = None
    untagged: bool = False


@dataclass(frozen=True, slots=True)
class Bad:
    """Not understood, or not now."""

    text: str
    code: Code | None = None
    untagged: bool = False


@dataclass(frozen=True, slots=True)
class Bye:
    """The connection is about to close. Always untagged."""

    text: str
    code: Code | None = None


@dataclass(frozen=True, slots=True)
class Preauth:
    """A greeting to a client that is known already (RFC 9051 7.1.4)."""

    text: str
    code: Code | None = None


@dataclass(frozen=True, slots=True)
class Continue:
    """`+ text`: the client may go on. For SASL the text is the challenge in base64."""

    text: str | bytes = ""


@dataclass(frozen=True, slots=True)
class Capability:
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Enabled:
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Id:
    """Fields of the server's ID, in order; none at all is NIL (RFC 2971 3.2)."""

    fields: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True)
class Flags:
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ListResponse:
    """One LIST or LSUB line. `delimiter` None is NIL; `extended` are (tag, wire text) pairs (RFC 5258 3.5)."""

    name: str
    attributes: tuple[str, ...] = ()
    delimiter: str | None = "/"
    extended: tuple[tuple[str, bytes], ...] = ()
    lsub: bool = False


@dataclass(frozen=True, slots=True)
class StatusResponse:
    """One STATUS line; a value that is no number is ready wire text."""

    name: str
    items: tuple[tuple[str, int | bytes], ...]


@dataclass(frozen=True, slots=True)
class Namespaces:
    """(prefix, delimiter) pairs; an empty tuple is NIL (RFC 2342 5)."""

    personal: tuple[tuple[str, str], ...]
    others: tuple[tuple[str, str], ...] = ()
    shared: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Search:
    """`* SEARCH`; `modseq` is the highest of the messages found, with CONDSTORE only (RFC 7162 3.1.5)."""

    numbers: Sequence[int]
    modseq: int | None = None


@dataclass(frozen=True, slots=True)
class Esearch:
    """`* ESEARCH`, tied to its command; `items` are (name, wire text) pairs (RFC 4731 3.1)."""

    items: tuple[tuple[str, int | bytes], ...]
    uid: bool = False


@dataclass(frozen=True, slots=True)
class Exists:
    count: int


@dataclass(frozen=True, slots=True)
class Recent:
    count: int


@dataclass(frozen=True, slots=True)
class Expunge:
    seq: int


@dataclass(frozen=True, slots=True)
class Vanished:
    """`* VANISHED`; uids ascending (RFC 7162 3.2.10)."""

    uids: Sequence[int]
    earlier: bool = False


@dataclass(frozen=True, slots=True)
class Fetch:
    """One FETCH line, `items` = (name, wire text). For a few messages: bulk answers are `Raw`."""

    seq: int
    items: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Raw:
    """Whole response lines, CRLF included, ready to send: 64 to 256 KiB at a time on the hot path."""

    octets: bytes


Status: TypeAlias = Ok | No | Bad
Response: TypeAlias = (
    Ok
    | No
    | Bad
    | Bye
    | Preauth
    | Continue
    | Capability
    | Enabled
    | Id
    | Flags
    | ListResponse
    | StatusResponse
    | Namespaces
    | Search
    | Esearch
    | Exists
    | Recent
    | Expunge
    | Vanished
    | Fetch
    | Raw
)
