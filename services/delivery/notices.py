"""DSNs about local recipients, as spool entries of our own."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from services.core import dsn
from services.core.address import PATH_OCTETS, parse
from services.core.directory import Directory, Expanded, Local, Remote, Suspended, Unknown
from services.core.ids import new_spool_id
from services.core.spool import TICKET_LOST_S, Spool, routed
from services.core.store.blobs import blob_id
from services.core.store.engine import Store
from services.core.store.spool import Due, Entry, Recipient, finish_with_notice


class Notices:
    """Composes and stages notices to senders."""

    def __init__(self, store: Store, spool: Spool, directory: Directory, hostname: str) -> None:
        self._store, self._spool, self._directory, self._hostname = store, spool, directory, hostname

    async def about(self, due: Due, reports: Sequence[dsn.Report], original: bytes) -> Entry | None:
        """A spool entry that tells the sender of `due`, its octets staged; None when nobody is left to be told."""
        recipients = await self._route(due.sender)
        if not recipients:
            return None
        spool_id = new_spool_id()
        octets = dsn.compose(
            dsn.Notice(
                hostname=self._hostname,
                sender=due.sender,
                received_at=due.received_at,
                now=datetime.now(UTC),
                message_id=f"{spool_id}@{self._hostname}",
                reports=reports,
                original=original,
                # RFC 3461 4.3: the whole message only for a failure, and only when asked for
                full=due.ret == "FULL" and any(r.action == "failed" for r in reports),
                envid=due.envid,
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
            smtputf8=not due.sender.isascii() or not all(r.recipient.isascii() for r in reports),
            traceparent=due.traceparent,
        )

    async def send(self, told: Sequence[Due], notice: Entry, *, failed: bool) -> bool:
        """Settle those recipients of one message and accept the notice in one commit; False if another did before."""
        if not await finish_with_notice(self._store, told, notice, TICKET_LOST_S, failed=failed):
            return False
        self._spool.publish(notice)
        return True

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
