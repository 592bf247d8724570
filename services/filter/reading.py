"""Blobs for many scans at once: those asked for while one read is under way share the next."""

from __future__ import annotations

import asyncio

from services.core.ids import BlobId
from services.core.store import blobs
from services.core.store.engine import Store

_ALONE_OCTETS = 1024 * 1024
_TOGETHER = 64


class Reading:
    """Reads of one process. A lone read starts at once; under load the number of queries falls."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._wanted: dict[BlobId, asyncio.Future[bytes | None]] = {}
        self._reader: asyncio.Task[None] | None = None

    async def read(self, blob_id: BlobId, size: int) -> bytes | None:
        """The octets, or None where there is no such blob. Raises StoreUnavailable. A large one holds up no other."""
        if size > _ALONE_OCTETS:
            return (await blobs.read(self._store, [blob_id])).get(blob_id)
        future = self._wanted.get(blob_id)
        if future is None:
            future = self._wanted[blob_id] = asyncio.get_running_loop().create_future()
        if self._reader is None:
            self._reader = asyncio.create_task(self._serve(), name="blob reader")
        # Two scans may wait for one blob, and the one that gives up must not take it from the other.
        return await asyncio.shield(future)

    async def _serve(self) -> None:
        try:
            while self._wanted:
                taken = {blob_id: self._wanted.pop(blob_id) for blob_id in list(self._wanted)[:_TOGETHER]}
                try:
                    octets = await blobs.read(self._store, list(taken))
                except Exception as error:
                    for future in taken.values():
                        future.set_exception(error)
                        future.exception()  # those who gave up waiting will not ask for it
                else:
                    for blob_id, future in taken.items():
                        future.set_result(octets.get(blob_id))
        finally:
            self._reader = None
