"""Mail that Posta itself writes, as spool entries: notices, digests, reports. Null senders, all (RFC 5321 4.5.5)."""

from __future__ import annotations

from collections.abc import Iterable

from services.core.address import PATH_OCTETS, BadAddress, parse
from services.core.directory import Directory, Expanded, Local, Remote, Suspended, Unknown
from services.core.ids import SpoolId
from services.core.spool import Spool, routed
from services.core.store.blobs import blob_id
from services.core.store.spool import Entry, Recipient


class OwnMail:
    """Routes and stages. Whoever asks for an entry commits it with what it tells of, then publishes it."""

    def __init__(self, spool: Spool, directory: Directory) -> None:
        self._spool, self._directory = spool, directory

    async def entry(
        self, spool_id: SpoolId, to: Iterable[str], octets: bytes, *, smtputf8: bool = False, traceparent: str = ""
    ) -> Entry | None:
        """An entry for whoever of `to` can be reached, its octets staged; None where nobody can."""
        routes: dict[tuple[int | None, str], Recipient] = {}
        for address in to:
            for recipient in await self._route(address):
                routes.setdefault((recipient.account_id, recipient.address), recipient)
        if not routes:
            return None
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
            recipients=tuple(routes.values()),
            smtputf8=smtputf8,
            traceparent=traceparent,
        )

    async def reaches(self, address: str) -> bool:
        """Whether somebody here reads what is sent there."""
        return any(recipient.account_id is not None for recipient in await self._route(address))

    def committed(self, entry: Entry) -> None:
        """The entry is kept: let it move on."""
        self._spool.publish(entry)

    async def _route(self, address: str) -> tuple[Recipient, ...]:
        try:
            parsed = parse(address, longest_local=PATH_OCTETS)
        except BadAddress:
            return ()
        match await self._directory.resolve(parsed):
            case Local() as local:
                targets: tuple[Local | Remote, ...] = (local,)
            case Remote() as remote:
                targets = (remote,)
            case Expanded(targets=several):
                targets = several
            case Suspended() | Unknown():
                return ()  # the account is gone or shut since: a double bounce has no reader
        return tuple(routed(target) for target in targets)
