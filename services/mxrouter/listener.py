"""The MX door: mail for our domains from any server."""

from __future__ import annotations

import re

from services.core.intake import Intake
from services.core.smtp import replies
from services.core.smtp.hooks import Ask
from services.core.smtp.replies import Reply
from services.core.smtp.session import Recipient, Sender, Session

_HOP_LIMIT = 100  # RFC 5321 6.3: at least 100 hops may be legitimate
_HOP = re.compile(rb"(?im)^received:")


class Door:
    """Hooks of the MX listener."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def connect(self, session: Session) -> Reply | None:
        return None

    async def helo(self, session: Session, name: str) -> Reply | None:
        return None

    def mechanisms(self, session: Session) -> tuple[str, ...]:
        return ()

    async def authenticate(self, session: Session, mechanism: str, initial: bytes | None, ask: Ask) -> Reply:
        return replies.AUTH_NOT_OFFERED

    async def mail(self, session: Session, sender: Sender) -> Reply | None:
        return None

    async def rcpt(self, session: Session, recipient: Recipient) -> Reply | None:
        await self._intake.recipient(session, recipient, replies.RELAY_DENIED)
        return None

    async def data(self, session: Session, message: bytes) -> Reply:
        end = message.find(b"\r\n\r\n")
        if len(_HOP.findall(message, 0, end if end >= 0 else len(message))) > _HOP_LIMIT:
            return replies.LOOP
        return await self._intake.take(session, message)

    async def disconnect(self, session: Session) -> None:
        return None
