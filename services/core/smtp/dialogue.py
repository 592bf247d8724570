"""One conversation, from the greeting to the last reply. It knows a `Channel` and no socket."""

from __future__ import annotations

from services.core.smtp import replies
from services.core.smtp.commands import COMMANDS
from services.core.smtp.conversation import Conversation, Ended
from services.core.smtp.hooks import Answered
from services.core.smtp.replies import Reply
from services.core.smtp.wire import Fault, Line


async def converse(conversation: Conversation) -> None:
    """Hold the conversation to its end. Never raises, but for its own cancellation."""
    session, hooks = conversation.session, conversation.hooks
    try:
        if await _greet(conversation):
            await _attend(conversation)
        else:
            await _turn_away(conversation)
    except Ended as end:
        if end.farewell is not None:
            conversation.channel.send(end.farewell.wire)
    finally:
        try:
            await hooks.disconnect(session)
        except Exception as error:
            conversation.report("disconnect", error)


async def _greet(conversation: Conversation) -> bool:
    try:
        reply = await conversation.hooks.connect(conversation.session)
    except Answered as answer:
        reply = answer.reply
    except Exception as error:
        conversation.report("connect", error)
        # At the greeting only 421 says "not now" (RFC 5321 4.3.2).
        reply = replies.SHUTTING_DOWN.saying(*replies.LOCAL_ERROR.lines)
    if reply is None or reply.positive:
        options = conversation.options
        conversation.say(replies.GREETING.saying(f"{options.hostname} {options.banner}"))
        return True
    conversation.say(reply)
    # 4xx other than 421 has no place in a greeting.
    conversation.over = conversation.over or not reply.permanent
    return False


async def _turn_away(conversation: Conversation) -> None:
    """RFC 5321 3.1: after 554 the server waits for QUIT, and answers 503 to all else."""
    while not conversation.over:
        event = await conversation.channel.line()
        if isinstance(event, Line) and event.octets.strip().upper() == b"QUIT":
            conversation.say(replies.BYE)
            return
        conversation.say(replies.REFUSED_AT_GREETING)


async def _attend(conversation: Conversation) -> None:
    channel, session = conversation.channel, conversation.session
    while not conversation.over:
        transaction = session.transaction
        event = await channel.line(drainable=transaction is None or transaction.chunks is None)
        if isinstance(event, Line):
            reply = await _obey(conversation, event.octets)
        elif event is Fault.LINE_TOO_LONG:
            reply = replies.LINE_TOO_LONG
        else:
            reply = replies.BARE_NEWLINE
        if reply is not None:
            conversation.say(reply)


async def _obey(conversation: Conversation, octets: bytes) -> Reply | None:
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        return replies.NOT_TEXT
    verb, _, argument = text.rstrip(" \t").partition(" ")
    command = COMMANDS.get(verb) or COMMANDS.get(verb.upper())
    if command is None:
        return replies.UNKNOWN_COMMAND if text.isprintable() else replies.NOT_TEXT
    session, options = conversation.session, conversation.options
    if len(octets) + 2 > command.longest:
        return replies.LINE_TOO_LONG
    if not argument.isprintable():
        return replies.NOT_TEXT
    if options.require_tls and session.tls is None and not command.before_tls:
        return replies.TLS_FIRST
    try:
        return await command.run(conversation, argument.lstrip(" "))
    except Answered as answer:
        return answer.reply
    except Ended:
        raise
    except Exception as error:
        conversation.report(command.verb, error)
        return replies.LOCAL_ERROR
