"""DSNs as mail of our own, for whoever finds that a message does not arrive: delivery, relay and quarantine."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

from services.core import dsn
from services.core.ids import new_spool_id
from services.core.ownmail import OwnMail
from services.core.store.spool import Entry


class Told(Protocol):
    """What a notice needs to know of the message that it is about."""

    @property
    def sender(self) -> str: ...
    @property
    def received_at(self) -> datetime: ...
    @property
    def ret(self) -> str | None: ...
    @property
    def envid(self) -> str | None: ...
    @property
    def traceparent(self) -> str: ...


class Notices:
    """Composes and stages notices to senders. Whoever asks for one commits it with what it tells of."""

    def __init__(self, mail: OwnMail, hostname: str) -> None:
        self._mail, self._hostname = mail, hostname

    async def about(self, message: Told, reports: Sequence[dsn.Report], original: bytes) -> Entry | None:
        """A spool entry that tells the sender of `message`, its octets staged; None when nobody is left to be told.

        `reports` share their action. `original`: the message, at least its header.
        """
        spool_id = new_spool_id()
        octets = dsn.compose(
            dsn.Notice(
                hostname=self._hostname,
                sender=message.sender,
                received_at=message.received_at,
                now=datetime.now(UTC),
                message_id=f"{spool_id}@{self._hostname}",
                reports=reports,
                original=original,
                # RFC 3461 4.3: the whole message only for a failure, and only when asked for
                full=message.ret == "FULL" and any(r.action == "failed" for r in reports),
                envid=message.envid,
            )
        )
        utf8 = not message.sender.isascii() or not all(r.recipient.isascii() for r in reports)
        return await self._mail.entry(
            spool_id, [message.sender], octets, smtputf8=utf8, traceparent=message.traceparent
        )

    def committed(self, notice: Entry) -> None:
        """The notice is kept: let it move on."""
        self._mail.committed(notice)
