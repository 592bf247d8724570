"""One mailbox brought back from another store: what it held there and holds here no more.

A message is known by its octets, the trace headers of its delivery included. One that has been moved since is held
still, so it stays where it is, in Trash too; one that lay in two folders and lies in one comes back to the other. What
is brought back has its octets, flags, keywords and internal date, and new UIDs. \\Deleted alone is left out: a client
would take the message away again.

What is done is committed batch by batch, and found to be held by whoever begins again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from datetime import datetime
from itertools import groupby
from typing import TypeVar

from services.contracts.v1.mail_pb2 import Changed
from services.core.bus import Bus
from services.core.foldername import SEPARATOR, canonical, checked, paths
from services.core.ids import AccountId, Fid
from services.core.store import accounts, beside, blobs, content, folders, messages, numbers, places
from services.core.store.beside import Held
from services.core.store.engine import Store
from services.core.store.flags import Flag
from services.core.store.messages import Placement
from services.core.subjects import changed

K = TypeVar("K")

BATCH, BATCH_OCTETS = 200, 8 << 20


class NotRestored(Exception):
    """The mailbox was not brought back, or not all of it; says why."""


class Restoration:
    """Brings mailboxes back into `live`, and tells their readers by `bus`."""

    def __init__(self, live: Store, source: Store, bus: Bus) -> None:
        self._live, self._source, self._bus = live, source, bus

    async def run(self, address: str, into: str = "", since: datetime | None = None) -> AsyncIterator[tuple[str, int]]:
        """Each folder that messages came back to, with how many. `into`: the folder to put their folders into.

        All of what is missing must fit the quota, else nothing is brought back. Folders that are gone are made again.
        Raises `NotRestored`, `BadName` for `into`, `accounts.NoSuchAccount`, `StoreUnavailable`.
        """
        into = checked(into) if into else ""
        async with self._live.read("restore.account") as conn:
            account_id = (await accounts.get(conn, address)).account_id
            quota, used = await places.usage(conn, account_id)
        async with self._source.read("restore.account") as conn:
            try:
                source_id = (await accounts.get(conn, address)).account_id
            except accounts.NoSuchAccount:
                raise NotRestored(f"there is no account {address} in the source") from None
        lost = await missing(beside.held(self._source, source_id, since), beside.held(self._live, account_id))
        targets = {each.path: checked(into + SEPARATOR + each.path) if into else each.path for each in lost}
        octets = sum(each.size for each in lost)
        if quota is not None and used + octets > quota:
            raise NotRestored(
                f"{octets} octets would come back to {address}, whose quota leaves {max(0, quota - used)}"
            )
        for fid, group in groupby(lost, lambda each: each.fid):
            found = list(group)
            path = targets[found[0].path]
            target = await self._folder(account_id, path)
            for batch in _batches(found):
                await self._bring(source_id, fid, batch, account_id, target)
            yield path, len(found)

    async def _folder(self, account_id: AccountId, path: str) -> Fid:
        """The folder at `path`, made with those above it where they are gone."""
        fid, levels = Fid(0), canonical(path).split(SEPARATOR)
        async with self._live.begin("restore.folder") as conn:
            try:
                await numbers.lock(conn, account_id)
            except numbers.NoSuchAccount:
                raise NotRestored("the account was deleted meanwhile") from None
            rows = await folders.list_folders(conn, account_id)
            path_of = paths(rows)
            there = {path_of[row.fid]: row for row in rows if row.fid in path_of}
            for depth, name in enumerate(levels, start=1):
                row = there.get(SEPARATOR.join(levels[:depth]))
                if row is None:
                    fid = await folders.create(conn, account_id, fid, name)
                    await folders.set_properties(conn, account_id, fid, subscribed=True)
                    continue
                fid = row.fid
                if depth == len(levels) and not row.selectable:
                    await folders.set_properties(conn, account_id, fid, selectable=True)
        return fid

    async def _bring(self, source_id: AccountId, fid: Fid, batch: list[Held], account_id: AccountId, into: Fid) -> None:
        rows = await beside.messages(self._source, source_id, fid, [each.uid for each in batch])
        octets = await blobs.read(self._source, [row.blob_id for row in rows])
        if lacking := {row.blob_id for row in rows} - octets.keys():
            raise NotRestored(f"the source lacks the octets of {len(lacking)} messages")
        await blobs.stage_named(self._live, list(octets.items()))
        placements = [
            Placement(
                await content.prepare(row.blob_id, row.prefix, octets[row.blob_id]),
                into,
                row.internal_date,
                row.flags & ~Flag.DELETED,
                row.is_read,
                row.keywords,
            )
            for row in rows
        ]
        try:
            placed = await messages.append(self._live, account_id, placements)
        except numbers.NoSuchAccount:
            raise NotRestored("the folder was deleted meanwhile: begin again") from None
        cn = max(each.cn for each in placed)
        self._bus.publish_hint(changed(account_id), Changed(account_id=account_id, fid=into, cn=cn))


async def missing(there: AsyncIterable[Held], here: AsyncIterable[Held]) -> list[Held]:
    """The messages `there` that nothing `here` answers to, in their order.

    Each one here answers to one there: of the same folder first, then of any other.
    """
    unmatched: Counter[tuple[bytes, str]] = Counter()
    async for each in here:
        unmatched[each.octets, each.path] += 1
    absent: list[Held] = []
    async for each in there:
        if not _take(unmatched, (each.octets, each.path)):
            absent.append(each)
    elsewhere: Counter[bytes] = Counter()
    for (octets, _), count in unmatched.items():
        elsewhere[octets] += count
    return [each for each in absent if not _take(elsewhere, each.octets)]


def _take(counted: Counter[K], key: K) -> bool:
    if counted[key] < 1:
        return False
    counted[key] -= 1
    return True


def _batches(found: Iterable[Held]) -> Iterator[list[Held]]:
    batch: list[Held] = []
    octets = 0
    for each in found:
        if batch and (len(batch) == BATCH or octets + each.size > BATCH_OCTETS):
            yield batch
            batch, octets = [], 0
        batch.append(each)
        octets += each.size
    yield batch
