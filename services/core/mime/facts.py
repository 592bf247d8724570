"""Everything delivery stores about a message, from one reading of it."""

from dataclasses import dataclass
from datetime import datetime

from services.core.mime.dates import parse_date
from services.core.mime.envelope import envelope_text, letterhead, structures
from services.core.mime.headers import Header, message_ids
from services.core.mime.parts import encode_parts
from services.core.mime.structure import Message, Part, parse
from services.core.mime.text import (
    SEARCH_LIMIT,
    base_subject,
    part_name,
    people,
    preview_of,
    read_texts,
    search_lines,
)
from services.core.mime.words import clean, decode_words

# What mail clients ask for with HEADER.FIELDS when they fill a message list; served without opening the blob.
HEAD_FIELDS = frozenset(
    b"date from sender reply-to to cc bcc subject message-id in-reply-to references content-type mime-version priority "
    b"x-priority importance newsgroups list-id list-post list-unsubscribe x-spam-flag x-label status "
    b"disposition-notification-to delivered-to return-path content-transfer-encoding content-disposition".split()
)
HEAD_LIMIT = 32 * 1024
REFERENCE_LIMIT = 100

_SIGNATURES = frozenset({"pgp-signature", "pgp-encrypted", "pkcs7-signature", "x-pkcs7-signature"})


@dataclass(frozen=True, slots=True)
class Facts:
    """One message as the store keeps it beside its octets.

    `envelope`, `bodystructure` and `body` are IMAP wire text; `parts` the table that `parts.decode_parts` reads; `head`
    the raw lines of the `HEAD_FIELDS` in order without a blank line, None when they are too big or were not all read.
    Ids have no angle brackets; `references` are the last `REFERENCE_LIMIT`. `sent_at` is in UTC. The
    `*_text` are casefolded for searching. Text is free of NUL and lone surrogates.
    """

    header_length: int
    envelope: bytes
    bodystructure: bytes
    body: bytes
    parts: bytes
    preview: str
    subject: str
    base_subject: str
    sent_at: datetime | None
    message_id: str | None
    in_reply_to: list[str]
    references: list[str]
    from_text: str
    to_text: str
    cc_text: str
    bcc_text: str
    search_text: str
    head: bytes | None
    has_attachment: bool
    limits_hit: tuple[str, ...]


def _head(fields: tuple[Header, ...], data: bytes) -> bytes | None:
    wanted = HEAD_FIELDS
    lines = b"".join([data[start:end] for name, start, _, end in fields if name in wanted])
    if len(lines) > HEAD_LIMIT:
        return None
    return lines + b"\r\n" if lines and not lines.endswith(b"\n") else lines


def _is_attachment(part: Part) -> bool:
    kind = part.disposition.kind if part.disposition is not None else ""
    if kind == "attachment":
        return True
    if part.is_multipart or part.subtype in _SIGNATURES:
        return False
    if part.type == "text":
        return kind != "inline" and part_name(part) is not None
    # A picture that the HTML beside it shows by its Content-ID is part of the text.
    return not (kind == "inline" or (part.id is not None and part.type == "image"))


def has_attachment(msg: Message) -> bool:
    """Whether a person would call something attached: a file or an enclosed message; no signature, no inline image."""
    root = msg.root
    if not root.children and root.type == "text":
        return root.disposition is not None and root.disposition.kind == "attachment"
    waiting = [root]
    while waiting:
        part = waiting.pop()
        if _is_attachment(part):
            return True
        if part.is_multipart:
            waiting.extend(part.children)
    return False


def facts(data: bytes) -> Facts:
    """Everything the store keeps about a message; never raises, whatever the octets.

    `limits_hit` names what was left opaque or unread: those of `structure.parse`, and "addresses".
    """
    msg = parse(data)
    root = msg.root
    head = letterhead(root.fields, msg.data)
    limits = msg.limits_hit
    if not head.complete:
        limits = (*limits, "addresses")
    body, bodystructure = structures(msg)
    texts = read_texts(msg, msg.data)
    names = people(head)
    values = head.values
    subject = clean(decode_words(values[b"subject"])) if b"subject" in values else ""
    sent = parse_date(values[b"date"]) if b"date" in values else None
    ids = message_ids(values[b"message-id"]) if b"message-id" in values else []
    unread = "header-lines" in limits or "header-octets" in limits
    return Facts(
        header_length=root.body_start,
        envelope=envelope_text(head),
        bodystructure=bodystructure,
        body=body,
        parts=encode_parts(msg),
        preview=preview_of(texts),
        subject=subject,
        base_subject=base_subject(subject),
        sent_at=sent.utc if sent is not None else None,
        message_id=ids[0] if ids else None,
        in_reply_to=message_ids(values[b"in-reply-to"])[-REFERENCE_LIMIT:] if b"in-reply-to" in values else [],
        references=message_ids(values[b"references"])[-REFERENCE_LIMIT:] if b"references" in values else [],
        from_text=names.get(b"from", ""),
        to_text=names.get(b"to", ""),
        cc_text=names.get(b"cc", ""),
        bcc_text=names.get(b"bcc", ""),
        search_text=search_lines(msg, subject, head, names, texts, SEARCH_LIMIT),
        head=None if unread else _head(root.fields, msg.data),
        has_attachment=has_attachment(msg),
        limits_hit=limits,
    )
