"""Every reply of our SMTP servers, in one table: name, code, enhanced code, text. Pure.

Codes are those of RFC 5321 4.2, enhanced codes those of RFC 3463 and the IANA registry. Groups follow the conversation.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server says to one command. `wire` is the whole of it, ready to send.

    `enhanced` is empty where RFC 2034 4 forbids one: greeting, HELO, EHLO, 3xx. Raises ValueError for a reply that no
    client could read: classes that contradict each other, or no text.
    """

    code: int
    enhanced: str
    lines: tuple[str, ...]
    wire: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 200 <= self.code <= 599 or not self.lines:
            raise ValueError(f"not a reply: {self.code} {self.lines}")
        # RFC 2034 4: the class of the enhanced code agrees with the first digit of the code.
        if self.enhanced and self.enhanced[0] != str(self.code)[0]:
            raise ValueError(f"{self.code} and {self.enhanced} contradict each other")
        object.__setattr__(self, "wire", self._wire())

    @property
    def positive(self) -> bool:
        """2xx: the command did what it is for."""
        return self.code < 300

    @property
    def permanent(self) -> bool:
        """5xx: the same command will fail again."""
        return self.code >= 500

    def saying(self, *lines: str) -> Reply:
        """The same codes in other words."""
        return replace(self, lines=lines)

    def about(self, detail: str) -> Reply:
        """The same reply, with what it is about after a colon."""
        return replace(self, lines=(*self.lines[:-1], f"{self.lines[-1]}: {detail}"))

    def _wire(self) -> bytes:
        enhanced = f"{self.enhanced} " if self.enhanced else ""
        last = len(self.lines) - 1
        return b"".join(
            f"{self.code}{' ' if at == last else '-'}{enhanced}{_one_line(text)}\r\n".encode()
            for at, text in enumerate(self.lines)
        )

    def __str__(self) -> str:
        return f"{self.code} {self.enhanced} {' / '.join(self.lines)}"


def _one_line(text: str) -> str:
    # What a peer, a filter or a remote server said may be quoted in a reply: it must not add lines to it.
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def _reply(code: int, enhanced: str, text: str) -> Reply:
    return Reply(code, enhanced, (text,))


# The connection
GREETING: Final = _reply(220, "", "ESMTP Posta")
BYE: Final = _reply(221, "2.0.0", "Bye")
START_TLS: Final = _reply(220, "2.0.0", "Ready to start TLS")
TIMED_OUT: Final = _reply(421, "4.4.2", "Nothing heard for too long, closing the connection")
SHUTTING_DOWN: Final = _reply(421, "4.3.2", "The service is shutting down, come back soon")
TOO_MANY_CONNECTIONS: Final = _reply(421, "4.7.0", "Too many connections, try again later")
TOO_MANY_ERRORS: Final = _reply(421, "4.7.0", "Too many errors, closing the connection")
NO_SERVICE: Final = _reply(554, "5.7.1", "No SMTP service for you here")
REFUSED_AT_GREETING: Final = _reply(503, "5.5.1", "You were refused service, only QUIT is left to say")

# Any command
OK: Final = _reply(250, "2.0.0", "OK")
HELLO: Final = _reply(250, "", "Hello")
HELP: Final = _reply(214, "2.0.0", "Commands")
UNKNOWN_COMMAND: Final = _reply(500, "5.5.2", "Command not recognised")
LINE_TOO_LONG: Final = _reply(500, "5.5.6", "The line is too long")
BARE_NEWLINE: Final = _reply(500, "5.5.2", "A line ends with <CR><LF>")
NOT_TEXT: Final = _reply(500, "5.5.2", "The line has characters that commands do not have")
NOT_IMPLEMENTED: Final = _reply(502, "5.5.1", "Command not implemented")
SYNTAX: Final = _reply(501, "5.5.4", "Syntax")
HELO_FIRST: Final = _reply(503, "5.5.1", "Send EHLO first")
STORE_GONE: Final = _reply(451, "4.3.0", "The mail store cannot be reached, try again later")
LOCAL_ERROR: Final = _reply(451, "4.3.0", "Something went wrong here, try again later")
CANNOT_VERIFY: Final = _reply(252, "2.5.2", "Send some mail, and the address will be tried")

# TLS and AUTH
NO_TLS: Final = _reply(502, "5.5.1", "TLS is not available")
TLS_ACTIVE: Final = _reply(503, "5.5.1", "TLS is active already")
TLS_FIRST: Final = _reply(530, "5.7.0", "Must issue a STARTTLS command first")
TLS_PIPELINED: Final = _reply(503, "5.5.1", "Nothing may follow STARTTLS before TLS begins")
AUTH_NEEDS_TLS: Final = _reply(538, "5.7.11", "Encryption required for authentication")
AUTH_REQUIRED: Final = _reply(530, "5.7.0", "Authentication required")
AUTH_NOT_OFFERED: Final = _reply(502, "5.5.1", "Authentication is not offered")
AUTH_UNKNOWN: Final = _reply(504, "5.5.4", "Authentication mechanism not offered")
AUTH_TWICE: Final = _reply(503, "5.5.1", "Already authenticated")
AUTH_IN_TRANSACTION: Final = _reply(503, "5.5.1", "No authentication within a mail transaction")
AUTH_CANCELLED: Final = _reply(501, "5.7.0", "Authentication cancelled")
AUTH_NOT_BASE64: Final = _reply(501, "5.5.2", "Not base64")
AUTH_TOO_LONG: Final = _reply(500, "5.5.6", "The authentication line is too long")
AUTH_OK: Final = _reply(235, "2.7.0", "Authentication successful")
AUTH_FAILED: Final = _reply(535, "5.7.8", "Authentication credentials invalid")
AUTH_TRY_LATER: Final = _reply(454, "4.7.0", "Temporary authentication failure")

# MAIL
SENDER_OK: Final = _reply(250, "2.1.0", "Sender OK")
NESTED_MAIL: Final = _reply(503, "5.5.1", "A mail transaction is open already")
BAD_SENDER: Final = _reply(553, "5.1.7", "Bad sender address")
SENDER_NOT_YOURS: Final = _reply(553, "5.7.1", "Sender address not owned by the login")
SENDING_PAUSED: Final = _reply(550, "5.7.1", "Sending is paused for this account: ask your postmaster")
MESSAGE_TOO_BIG: Final = _reply(552, "5.3.4", "The message exceeds the size limit")
UNKNOWN_PARAMETER: Final = _reply(555, "5.5.4", "Parameter not recognised or not implemented")
BAD_PARAMETER: Final = _reply(501, "5.5.4", "Bad parameter")
NEEDS_SMTPUTF8: Final = _reply(553, "5.6.7", "A non-ASCII address needs SMTPUTF8")
TOO_MANY_MESSAGES: Final = _reply(450, "4.7.1", "Your network sends more messages a minute than it may")

# RCPT
RECIPIENT_OK: Final = _reply(250, "2.1.5", "Recipient OK")
MAIL_FIRST: Final = _reply(503, "5.5.1", "Send MAIL first")
BAD_RECIPIENT: Final = _reply(553, "5.1.3", "Bad recipient address")
UNKNOWN_RECIPIENT: Final = _reply(550, "5.1.1", "No such mailbox here")
RECIPIENT_DISABLED: Final = _reply(550, "5.2.1", "The mailbox does not accept mail")
RELAY_DENIED: Final = _reply(550, "5.7.1", "Relaying is not permitted")
MAILBOX_FULL: Final = _reply(452, "4.2.2", "The mailbox is full")
MAILBOX_NEVER_FITS: Final = _reply(552, "5.2.2", "The message exceeds what the mailbox may hold")
TOO_MANY_RECIPIENTS: Final = _reply(452, "4.5.3", "Too many recipients")
HELO_NO_NAME: Final = _reply(504, "5.5.2", "HELO needs the full name of a host")
HELO_IS_OURS: Final = _reply(550, "5.7.1", "The name in HELO is ours, not yours")
# RFC 7372 3.3.
NO_REVERSE_NAME: Final = _reply(550, "5.7.25", "Your address has no name that points back to it")
REVERSE_NAME_UNKNOWN: Final = _reply(451, "4.7.25", "The name of your address cannot be found out now, try again later")
SENDER_DOMAIN_UNKNOWN: Final = _reply(550, "5.1.8", "The domain of the sender does not exist or takes no mail")
# RFC 7505 4.2.
SENDER_TAKES_NO_MAIL: Final = _reply(550, "5.7.27", "The domain of the sender takes no mail")
SENDER_DOMAIN_NO_ANSWER: Final = _reply(451, "4.1.8", "The domain of the sender cannot be looked up, try again later")
GREYLISTED: Final = _reply(451, "4.7.1", "Not known yet, try again")
DIRECTORY_GONE: Final = _reply(451, "4.3.0", "The directory cannot be reached, try again later")

# DATA and BDAT
START_INPUT: Final = _reply(354, "", "End data with <CR><LF>.<CR><LF>")
KEPT: Final = _reply(250, "2.0.0", "Kept")
CHUNK_OK: Final = _reply(250, "2.0.0", "Octets received")
NO_RECIPIENTS: Final = _reply(554, "5.5.1", "No valid recipients")
CHUNKS_OPEN: Final = _reply(503, "5.5.1", "Only BDAT or RSET may follow BDAT")
BARE_NEWLINE_IN_MESSAGE: Final = _reply(550, "5.6.0", "The message has a bare <CR> or <LF>, lines end with <CR><LF>")
TOO_MUCH_SENT: Final = _reply(450, "4.7.1", "The account has sent to as many recipients as it may for now")
TOO_MANY_AT_ONCE: Final = _reply(550, "5.7.1", "The message has more recipients than the account may have")
FROM_NOT_YOURS: Final = _reply(550, "5.7.1", "The From address is not owned by the login")
LOOP: Final = _reply(554, "5.4.6", "The message has passed too many servers: it is going round")
NOT_ACCEPTED: Final = _reply(550, "5.7.1", "The message is not accepted")


def challenge(base64: bytes) -> bytes:
    """The continuation of an AUTH exchange, which is no reply to anything (RFC 4954 4)."""
    return b"334 " + base64 + b"\r\n"
