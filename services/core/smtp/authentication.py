"""AUTH (RFC 4954): the exchange as the wire sees it. What the octets mean is the door's business."""

from __future__ import annotations

import binascii

from services.core.smtp import replies
from services.core.smtp.conversation import Conversation
from services.core.smtp.hooks import Cancelled
from services.core.smtp.replies import Reply
from services.core.smtp.wire import Fault, Line


async def auth(conversation: Conversation, argument: str) -> Reply:
    """AUTH mechanism [initial-response]."""
    session = conversation.session
    name, _, initial = argument.partition(" ")
    if (refusal := _refusal(conversation, name)) is not None:
        return refusal

    async def ask(challenge: bytes) -> bytes:
        conversation.channel.send(replies.challenge(binascii.b2a_base64(challenge, newline=False)))
        event = await conversation.channel.line()
        if not isinstance(event, Line):
            raise Cancelled(replies.AUTH_TOO_LONG if event is Fault.LINE_TOO_LONG else replies.BARE_NEWLINE)
        answer = event.octets.strip()
        if answer == b"*":
            raise Cancelled
        return _decoded(answer)

    first = None if not initial else b"" if initial == "=" else _decoded(initial.strip().encode())
    reply = await conversation.hooks.authenticate(session, name.upper(), first, ask)
    if reply.positive:
        conversation.channel.progressed()
    return reply


def _refusal(conversation: Conversation, name: str) -> Reply | None:
    session = conversation.session
    if not session.esmtp or session.helo is None:
        return replies.HELO_FIRST
    if session.login is not None:
        return replies.AUTH_TWICE
    if session.transaction is not None:
        return replies.AUTH_IN_TRANSACTION
    mechanisms = conversation.hooks.mechanisms(session)
    if not mechanisms:
        tls_would_help = session.tls is None and conversation.channel.tls_possible
        return replies.AUTH_NEEDS_TLS if tls_would_help else replies.AUTH_NOT_OFFERED
    if not name:
        return replies.SYNTAX.about("AUTH mechanism [initial-response]")
    return None if name.upper() in mechanisms else replies.AUTH_UNKNOWN


def _decoded(answer: bytes) -> bytes:
    try:
        return binascii.a2b_base64(answer, strict_mode=True) if answer else b""
    except binascii.Error:
        raise Cancelled(replies.AUTH_NOT_BASE64) from None
