"""The verbs of a session, and the one tuple that dispatch and HELP are made from."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from services.core.smtp import replies
from services.core.smtp.authentication import auth
from services.core.smtp.conversation import Command, Conversation
from services.core.smtp.extensions import Offer, keywords
from services.core.smtp.message import bdat, data
from services.core.smtp.parameters import parse_mail, parse_rcpt
from services.core.smtp.replies import Reply
from services.core.smtp.session import Transaction

# What the extensions add to the 512 octets of a line: RFC 1870 3, 6152 2, 6531 3.4, 3461 5, 4954 3, 4954 4, 8689 3.
_MAIL_OCTETS: Final = 512 + 26 + 17 + 10 + 9 + 107 + 500 + 12
_RCPT_OCTETS: Final = 512 + 28 + 508
_AUTH_OCTETS: Final = 12288


async def _helo(conversation: Conversation, argument: str) -> Reply:
    refusal = await _hello(conversation, argument, esmtp=False)
    return refusal or _hello_reply((conversation.options.hostname,))


async def _ehlo(conversation: Conversation, argument: str) -> Reply:
    refusal = await _hello(conversation, argument, esmtp=True)
    if refusal is not None:
        return refusal
    options, session = conversation.options, conversation.session
    mechanisms = () if session.login is not None else conversation.hooks.mechanisms(session)
    offer = Offer(options, session, conversation.channel.tls_possible, mechanisms)
    return _hello_reply((options.hostname, *keywords(offer)))


async def _hello(conversation: Conversation, name: str, *, esmtp: bool) -> Reply | None:
    session = conversation.session
    if not name:
        return replies.SYNTAX.about(f"{'EHLO' if esmtp else 'HELO'} hostname")
    # RFC 5321 4.1.4: EHLO clears what was begun, as RSET does; and who greets anew starts anew.
    session.transaction, session.helo, session.esmtp = None, None, esmtp
    reply = await conversation.hooks.helo(session, name)
    if reply is not None and not reply.positive:
        return reply
    session.helo = name
    return None


@lru_cache(maxsize=64)
def _hello_reply(lines: tuple[str, ...]) -> Reply:
    return replies.HELLO.saying(*lines)


async def _mail(conversation: Conversation, argument: str) -> Reply:
    session, options = conversation.session, conversation.options
    if session.helo is None:
        return replies.HELO_FIRST
    if session.transaction is not None:
        return replies.NESTED_MAIL
    if options.require_auth and session.login is None:
        return replies.AUTH_REQUIRED
    sender = parse_mail(argument, session.esmtp, options.max_size, tls=session.tls is not None)
    session.transaction = Transaction(sender)
    accepted = False
    try:
        reply = await conversation.hooks.mail(session, sender) or replies.SENDER_OK
        accepted = reply.positive
    finally:
        if not accepted:
            session.transaction = None
    conversation.channel.progressed()
    return reply


async def _rcpt(conversation: Conversation, argument: str) -> Reply:
    session, options = conversation.session, conversation.options
    transaction = session.transaction
    if transaction is None:
        return replies.MAIL_FIRST
    if transaction.chunks is not None:
        return replies.CHUNKS_OPEN
    if len(transaction.recipients) >= options.max_recipients:
        return replies.TOO_MANY_RECIPIENTS
    recipient = parse_rcpt(argument, session.esmtp, transaction.smtputf8, options.hostname)
    reply = await conversation.hooks.rcpt(session, recipient) or replies.RECIPIENT_OK
    if reply.positive:
        transaction.recipients.append(recipient)
    return reply


async def _rset(conversation: Conversation, argument: str) -> Reply:
    if argument:
        return replies.SYNTAX.about("RSET")
    conversation.session.transaction = None
    return replies.OK


async def _noop(_conversation: Conversation, _argument: str) -> Reply:
    return replies.OK


async def _vrfy(_conversation: Conversation, argument: str) -> Reply:
    # RFC 5321 7.3: whether an address exists is told at RCPT, and to nobody who does not send.
    return replies.CANNOT_VERIFY if argument else replies.SYNTAX.about("VRFY address")


async def _expn(_conversation: Conversation, _argument: str) -> Reply:
    return replies.NOT_IMPLEMENTED


async def _help(_conversation: Conversation, argument: str) -> Reply:
    command = COMMANDS.get(argument.upper())
    return replies.HELP.saying(command.syntax) if command else _HELP


async def _quit(conversation: Conversation, argument: str) -> Reply:
    if argument:
        return replies.SYNTAX.about("QUIT")
    conversation.over = True
    return replies.BYE


async def _starttls(conversation: Conversation, argument: str) -> Reply | None:
    session, channel = conversation.session, conversation.channel
    if argument:
        return replies.SYNTAX.about("STARTTLS")
    if session.tls is not None:
        return replies.TLS_ACTIVE
    if not channel.tls_possible:
        return replies.NO_TLS
    if channel.unread:
        # RFC 3207 6: whoever sits in between could have put it there, to be obeyed as if it came under TLS.
        channel.discard_unread()
        return replies.TLS_PIPELINED
    session.tls = await channel.start_tls(replies.START_TLS)
    # RFC 3207 4.2: what was said in the clear is forgotten.
    session.helo, session.esmtp, session.transaction, session.login = None, False, None, None
    return None


_TUPLE: Final = (
    Command("HELO", "HELO hostname", _helo, before_tls=True),
    Command("EHLO", "EHLO hostname", _ehlo, before_tls=True),
    Command("MAIL", "MAIL FROM:<address> [parameters]", _mail, longest=_MAIL_OCTETS),
    Command("RCPT", "RCPT TO:<address> [parameters]", _rcpt, longest=_RCPT_OCTETS),
    Command("DATA", "DATA", data),
    # Its octets follow whatever the answer is, so BDAT refuses by itself.
    Command("BDAT", "BDAT octets [LAST]", bdat, before_tls=True),
    Command("RSET", "RSET", _rset, before_tls=True),
    Command("NOOP", "NOOP [ignored]", _noop, before_tls=True),
    Command("QUIT", "QUIT", _quit, before_tls=True),
    Command("STARTTLS", "STARTTLS", _starttls, before_tls=True),
    # Without TLS the answer is 538, which says more than 530.
    Command("AUTH", "AUTH mechanism [initial-response]", auth, longest=_AUTH_OCTETS, before_tls=True),
    Command("VRFY", "VRFY address", _vrfy),
    Command("EXPN", "EXPN list", _expn),
    Command("HELP", "HELP [command]", _help, before_tls=True),
)
COMMANDS: Final = {command.verb: command for command in _TUPLE}
_HELP: Final = replies.HELP.about(" ".join(COMMANDS))
