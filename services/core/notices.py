"""DSNs as spool entries of our own, for whoever finds that a message does not arrive: delivery and relay."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

from services.core import dsn
from services.core.address import PATH_OCTETS, parse
from services.core.directory import Directory, Expanded, Local, Remote, Suspended, Unknown
from services.core.ids import new_spool_id
from services.core.spool import Spool, routed
from services.core.store.blobs import blob_id
from services.core.store.spool import Entry, Recipient


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

    def __init__(self, spool: Spool, directory: Directory, hostname: str) -> None:
        self._spool, self._directory, self._hostname = spool, directory, hostname

    async def about(self, message: Told, reports: Sequence[dsn.Report], original: bytes) -> Entry | None:
        """A spool entry that tells the sender of `message`, its octets staged; None when nobody is left to be told.

        `reports` share their action. `original`: the message, at least its header.
        """
        recipients = await self._route(message.sender)
        if not recipients:
            return None
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
        blob = blob_id(octets)
        await self._spool.stage(blob, octets)
        return Entry(
            spool_id=spool_id,
            blob_id=blob,
            prefix=b"",
            size=len(octets),
            sender="",
            sender_account_id=None,
            door="posta",
            client="",
            junk=False,
            recipients=recipients,
            smtputf8=not message.sender.isascii() or not all(r.recipient.isascii() for r in reports),
            traceparent=message.traceparent,
        )

    def committed(self, notice: Entry) -> None:
        """The notice is kept: let it move on."""
        self._spool.publish(notice)

    async def _route(self, address: str) -> tuple[Recipient, ...]:
        match await self._directory.resolve(parse(address, longest_local=PATH_OCTETS)):
            case Local() as local:
                targets: tuple[Local | Remote, ...] = (local,)
            case Remote() as remote:
                targets = (remote,)
            case Expanded(targets=several):
                targets = several
            case Suspended() | Unknown():
                return ()  # the account is gone or shut since: a double bounce has no reader
        return tuple(routed(target) for target in targets)
