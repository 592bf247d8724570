"""IMAP ENVELOPE, BODY and BODYSTRUCTURE as finished wire text (RFC 9051 7.5.2, RFC 3501 7.4.2)."""

import re
from dataclasses import dataclass
from functools import lru_cache

from services.core.mime.addresses import Address, GroupStart, Mailbox, read_addresses
from services.core.mime.headers import Header, unfold
from services.core.mime.params import Disposition, Params
from services.core.mime.structure import Message, Part

ADDRESS_FIELDS = (b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc")
_LETTER_FIELDS = frozenset(
    (*ADDRESS_FIELDS, b"date", b"subject", b"in-reply-to", b"message-id", b"references", b"list-id")
)
# Beyond this a quoted string is legal, but a client's line buffer may not think so.
_QUOTED_LENGTH = 1000

_unplain = re.compile(rb"[\x00\r\n\"\\\x80-\xff]").search
_LITERAL = re.compile(rb"[\r\n\x80-\xff]")
_ESCAPE = re.compile(rb'(["\\])')


@dataclass(frozen=True, slots=True)
class Letterhead:
    """The fields of one message that envelope, search and threads need: unfolded values, addresses parsed.

    `complete` is False when an address list passed its limit.
    """

    values: dict[bytes, bytes]
    addresses: dict[bytes, list[Address]]
    complete: bool


def letterhead(fields: tuple[Header, ...], data: bytes) -> Letterhead:
    """The letterhead of a message header. Of a repeated field the first counts, but address fields add up."""
    values: dict[bytes, bytes] = {}
    repeated: dict[bytes, list[bytes]] = {}
    wanted = _LETTER_FIELDS
    for name, _, value_start, end in fields:
        if name in wanted:
            value = unfold(data[value_start:end])
            if name not in values:
                values[name] = value
            elif name in ADDRESS_FIELDS:
                repeated.setdefault(name, [values[name]]).append(value)
    for name, lists in repeated.items():
        values[name] = b", ".join(lists)
    addresses: dict[bytes, list[Address]] = {}
    complete = True
    for name in ADDRESS_FIELDS:
        if name in values:
            addresses[name], whole = read_addresses(values[name])
            complete = complete and whole
    return Letterhead(values, addresses, complete)


def string(text: bytes) -> bytes:
    """An IMAP string: quoted where grammar and good sense allow, else a literal. NUL is dropped, no string has it."""
    if len(text) <= _QUOTED_LENGTH and _unplain(text) is None:
        return b'"%b"' % text
    if b"\x00" in text:
        text = text.replace(b"\x00", b"")
    if len(text) > _QUOTED_LENGTH or _LITERAL.search(text) is not None:
        return b"{%d}\r\n%b" % (len(text), text)
    return b'"%b"' % _ESCAPE.sub(rb"\\\1", text)


def nstring(text: bytes | None) -> bytes:
    """An IMAP nstring: NIL for None."""
    return b"NIL" if text is None else string(text)


def _address(address: Address) -> bytes:
    if isinstance(address, Mailbox):
        name, route, local, domain = address
        # RFC 9051 7.5.2: a NIL host would open a group, so a missing one is empty.
        return b"(%b %b %b %b)" % (
            b"NIL" if name is None else string(name),
            b"NIL" if route is None else string(route),
            string(local),
            string(domain),
        )
    return b"(NIL NIL %b NIL)" % string(address.name) if isinstance(address, GroupStart) else b"(NIL NIL NIL NIL)"


def _addresses(addresses: list[Address] | None) -> bytes:
    return b"(%b)" % b"".join([_address(address) for address in addresses]) if addresses else b"NIL"


def envelope_text(head: Letterhead) -> bytes:
    """The ENVELOPE of a letterhead."""
    get, parsed = head.values.get, head.addresses.get
    sender = _addresses(parsed(b"from"))
    # RFC 9051 7.5.2: absent or empty Sender and Reply-To are those of From
    return b"(%b %b %b %b %b %b %b %b %b %b)" % (
        nstring(get(b"date")),
        nstring(get(b"subject")),
        sender,
        _addresses(a) if (a := parsed(b"sender")) else sender,
        _addresses(a) if (a := parsed(b"reply-to")) else sender,
        _addresses(parsed(b"to")),
        _addresses(parsed(b"cc")),
        _addresses(parsed(b"bcc")),
        nstring(get(b"in-reply-to")),
        nstring(get(b"message-id")),
    )


def envelope(msg: Message) -> bytes:
    """The ENVELOPE of a message, ready to send."""
    return envelope_text(letterhead(msg.root.fields, msg.data))


def _params(params: Params) -> bytes:
    if not params:
        return b"NIL"
    return b"(%b)" % b" ".join([b"%b %b" % (string(name.encode("latin-1")), string(value)) for name, value in params])


@lru_cache(maxsize=512)
def _media(main: str, sub: str, params: Params) -> bytes:
    if main == "text" and not params:
        params = (("charset", b"us-ascii"),)  # RFC 2045 5.2
    return b"%b %b %b" % (string(main.encode("latin-1")), string(sub.encode("latin-1")), _params(params))


def _disposition(disposition: Disposition | None) -> bytes:
    if disposition is None:
        return b"NIL"
    return b"(%b %b)" % (string(disposition.kind.encode("latin-1")), _params(disposition.params))


def _language(tags: tuple[bytes, ...]) -> bytes:
    if len(tags) > 1:
        return b"(%b)" % b" ".join([string(tag) for tag in tags])
    return string(tags[0]) if tags else b"NIL"


def _extension(part: Part) -> bytes:
    """What body-ext-1part and body-ext-mpart end with: disposition, language, location."""
    if part.disposition is None and not part.language and part.location is None:
        return b"NIL NIL NIL"
    return b"%b %b %b" % (_disposition(part.disposition), _language(part.language), nstring(part.location))


def _structures(part: Part, data: bytes) -> tuple[bytes, bytes]:
    """BODY and BODYSTRUCTURE of one part."""
    extension = _extension(part)
    if part.is_multipart:
        pairs = [_structures(child, data) for child in part.children]
        sub = string(part.subtype.encode("latin-1"))
        return (
            b"(%b %b)" % (b"".join([plain for plain, _ in pairs]), sub),
            b"(%b %b %b %b)" % (b"".join([full for _, full in pairs]), sub, _params(part.params), extension),
        )
    boundary_free = len(part.params) < 3
    media = (_media if boundary_free else _media.__wrapped__)(part.type, part.subtype, part.params)
    basic = b"%b %b %b %b %d" % (
        media,
        nstring(part.id),
        nstring(part.description),
        string(part.encoding.encode("latin-1")),
        part.size,
    )
    extension = b"%b %b" % (nstring(part.md5), extension)
    if part.is_message:
        inner = part.children[0]
        plain, full = _structures(inner, data)
        letter = envelope_text(letterhead(inner.fields, data))
        return (
            b"(%b %b %b %d)" % (basic, letter, plain, part.lines),
            b"(%b %b %b %d %b)" % (basic, letter, full, part.lines, extension),
        )
    if part.type == "text":
        basic = b"%b %d" % (basic, part.lines)
    return b"(%b)" % basic, b"(%b %b)" % (basic, extension)


def structures(msg: Message) -> tuple[bytes, bytes]:
    """BODY and BODYSTRUCTURE of a message in one walk, ready to send."""
    return _structures(msg.root, msg.data)


def body(msg: Message) -> bytes:
    """The BODY of a message (no extension data), ready to send."""
    return structures(msg)[0]


def bodystructure(msg: Message) -> bytes:
    """The BODYSTRUCTURE of a message (with extension data), ready to send."""
    return structures(msg)[1]
