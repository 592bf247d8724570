"""From octets to what `objects` keeps: the one place where a stored message is parsed."""

from __future__ import annotations

import asyncio
import hashlib

from services.core.ids import BlobId
from services.core.mime.facts import facts
from services.core.store.messages import Content

# Parsing holds the event loop; from this size on it is worth a thread.
_LARGE = 256 << 10


async def prepare(blob_id: BlobId, prefix: bytes, octets: bytes) -> Content:
    """Everything readers are served, computed once. `octets`: the blob; `prefix`: what Posta put in front of it.

    Never raises on any octets: what is not mail by RFC 5322 is kept and served as it is.
    """
    if len(octets) > _LARGE:
        return await asyncio.to_thread(_prepare, blob_id, prefix, octets)
    return _prepare(blob_id, prefix, octets)


def _prepare(blob_id: BlobId, prefix: bytes, octets: bytes) -> Content:
    found = facts(prefix + octets)
    refs = found.references or found.in_reply_to
    root = refs[0] if refs else found.message_id
    return Content(
        blob_id=blob_id,
        prefix=prefix,
        size=len(prefix) + len(octets),
        header_length=found.header_length,
        envelope=found.envelope,
        bodystructure=found.bodystructure,
        parts=found.parts,
        head=found.head,
        subject=found.subject,
        base_subject=found.base_subject,
        from_text=found.from_text,
        to_text=found.to_text,
        cc_text=found.cc_text,
        bcc_text=found.bcc_text,
        preview=found.preview,
        sent_at=found.sent_at,
        message_id=found.message_id,
        refs="\n".join(refs),
        has_attachment=found.has_attachment,
        search_text=found.search_text,
        thread_key=_thread_key(root.encode() if root else blob_id),
    )


def _thread_key(root: bytes) -> int:
    """A thread is named after the message it began with, so its parts find each other in any order of arrival."""
    return int.from_bytes(hashlib.blake2b(root, digest_size=8).digest(), "big") >> 1
