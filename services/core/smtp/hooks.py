"""What a door decides, and the ways it may say so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from services.core.smtp.replies import AUTH_CANCELLED, Reply
from services.core.smtp.session import Recipient, Sender, Session

Ask = Callable[[bytes], Awaitable[bytes]]
"""Sends a challenge (`334` and base64 are added) and gives the client's answer, decoded. Raises Cancelled."""


class Answered(Exception):
    """A hook's way out from anywhere below it: `reply` is what the peer hears."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class Refused(Answered):
    """For good: a 5xx reply."""


class TryLater(Answered):
    """For now: a 4xx reply."""


class Cancelled(Refused):
    """The client gave the exchange up, with `*` or with what is not base64 (RFC 4954 4)."""

    def __init__(self, reply: Reply = AUTH_CANCELLED) -> None:
        super().__init__(reply)


class Hooks(Protocol):
    """One object per listener; it keeps nothing of a session but what it puts in `session.facts`.

    `None` lets the conversation go on with its usual 2xx. A `Reply`, returned or raised in `Refused` or `TryLater`, is
    given instead; one that is not 2xx refuses. Anything else raised is logged and answered 451 4.3.0. The hooks of a
    session are called one after the other. A lost peer cancels none of them, a drain only when its grace is over.
    """

    async def connect(self, session: Session) -> Reply | None:
        """A peer is there; TLS is on already where the listener has implicit TLS. 421 closes, 554 waits for QUIT."""
        ...

    async def helo(self, session: Session, name: str) -> Reply | None:
        """HELO or EHLO; `session.esmtp` tells which. Called again after STARTTLS."""
        ...

    def mechanisms(self, session: Session) -> tuple[str, ...]:
        """What EHLO lists after AUTH, in upper case. Empty: not offered, or not before TLS."""
        ...

    async def authenticate(self, session: Session, mechanism: str, initial: bytes | None, ask: Ask) -> Reply:
        """Carry the exchange through; for success, put the account in `session.login` and return AUTH_OK.

        `initial` is the decoded initial response, None where there was none. Let `Cancelled` pass.
        """
        ...

    async def mail(self, session: Session, sender: Sender) -> Reply | None:
        """MAIL: `session.transaction` holds `sender` already, and is taken away when it is refused."""
        ...

    async def rcpt(self, session: Session, recipient: Recipient) -> Reply | None:
        """RCPT: once accepted, `recipient` is the last of `session.transaction.recipients`."""
        ...

    async def data(self, session: Session, message: bytes) -> Reply:
        """The message, whole, dots undone: the final reply. Called once, for DATA or for BDAT LAST."""
        ...

    async def disconnect(self, session: Session) -> None:
        """The session is over, in whatever way. Called once for every `connect`."""
        ...
