"""DATA and BDAT: how a message comes in, and the one place where it is handed to the door."""

from __future__ import annotations

import re
from typing import Final

from services.core.smtp import replies
from services.core.smtp.conversation import Conversation
from services.core.smtp.replies import Reply
from services.core.smtp.wire import Chunk, Message, Newlines, newlines

_OCTETS: Final = re.compile(r"[0-9]{1,20}")


async def data(conversation: Conversation, argument: str) -> Reply:
    """RFC 5321 4.1.1.4."""
    session = conversation.session
    transaction = session.transaction
    if transaction is None:
        return replies.MAIL_FIRST
    if transaction.chunks is not None:
        # RFC 3030 2: DATA and BDAT cannot be used in the same transaction.
        return replies.CHUNKS_OPEN
    if argument:
        return replies.SYNTAX.about("DATA")
    if not transaction.recipients:
        return replies.NO_RECIPIENTS
    transaction.chunks = []
    conversation.channel.send(replies.START_INPUT.wire)
    event = await conversation.channel.message(conversation.options.max_size)
    if isinstance(event, Message):
        return await _hand_over(conversation, event)
    session.transaction = None
    return replies.MESSAGE_TOO_BIG


async def bdat(conversation: Conversation, argument: str) -> Reply:
    """RFC 3030 2: the octets are read whatever the answer will be."""
    session = conversation.session
    count, _, last = argument.partition(" ")
    if _OCTETS.fullmatch(count) is None or last.strip().upper() not in ("", "LAST"):
        # How many octets follow is not known: what comes next cannot be told from commands.
        conversation.over = True
        return replies.SYNTAX.about("BDAT octets [LAST]")
    size = int(count)
    problem = _problem(conversation, size)
    if problem is None and session.transaction is not None and session.transaction.chunks is None:
        session.transaction.chunks = []
    event = await conversation.channel.chunk(size, keep=problem is None)
    transaction = session.transaction
    if problem is not None or transaction is None or transaction.chunks is None or not isinstance(event, Chunk):
        if problem is replies.MESSAGE_TOO_BIG:
            # What follows of this message finds no transaction and is refused as well.
            session.transaction = None
        return problem or replies.MAIL_FIRST
    transaction.chunks.append(event.octets)
    conversation.channel.progressed()
    if not last:
        return replies.CHUNK_OK.saying(f"{size} octets received")
    octets = b"".join(transaction.chunks)
    return await _hand_over(conversation, Message(octets, newlines(octets)))


def _problem(conversation: Conversation, size: int) -> Reply | None:
    transaction = conversation.session.transaction
    if transaction is None:
        return replies.MAIL_FIRST
    if not transaction.recipients:
        return replies.NO_RECIPIENTS
    if sum(map(len, transaction.chunks or ())) + size > conversation.options.max_size:
        return replies.MESSAGE_TOO_BIG
    return None


async def _hand_over(conversation: Conversation, message: Message) -> Reply:
    session = conversation.session
    try:
        keeps_bare = conversation.options.bare_newlines == "keep"
        if message.newlines is Newlines.FALSE_END or (message.newlines is Newlines.BARE and not keeps_bare):
            return replies.BARE_NEWLINE_IN_MESSAGE
        reply = await conversation.hooks.data(session, message.octets)
        if reply.positive:
            session.errors = 0
        return reply
    finally:
        session.transaction = None
        conversation.channel.progressed()
