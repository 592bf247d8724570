"""Held mail for the verbs: read from Postgres and settled there, whatever else runs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

from services.core.address import BadAddress, domain
from services.core.review import Review
from services.core.spool import Spool
from services.core.store import blobs, quarantine
from services.core.store.engine import Store, StoreUnavailable
from services.core.store.quarantine import NoSuchMessage, Shown
from services.dev.plan import HOSTNAME
from services.dev.quiet import bus_at
from services.dev.trouble import Trouble

Row = dict[str, Any]


class Quarantine:
    """The verbs' way to what is held; use `Quarantine.at`."""

    def __init__(self, store: Store, review: Review, by: str) -> None:
        self._store, self._review, self._by = store, review, by

    @classmethod
    @asynccontextmanager
    async def at(cls, database_url: str, nats_url: str, by: str) -> AsyncIterator[Self]:
        """The quarantine of this database for the block. `nats_url`: empty where no service runs to be told.

        What is released while NATS is away moves on as soon as a sweeper finds it. What goes wrong leaves the block as
        a Trouble.
        """
        store = Store(database_url, pool=1)
        try:
            async with bus_at(nats_url) as bus:
                yield cls(store, Review(store, bus, Spool(store, bus, bus.log), service="posta", host=HOSTNAME), by)
        except NoSuchMessage as error:
            raise Trouble(f"nothing is held as {error}") from None
        except BadAddress as error:
            raise Trouble(str(error), 2) from None
        except StoreUnavailable as error:
            raise Trouble(f"the store cannot be reached: {error}") from None
        finally:
            await store.close()

    async def find(self, **wanted: Any) -> list[Row]:
        """Held messages, the newest first; arguments as those of the store's `find`."""
        return [_row(each) for each in await quarantine.find(self._store, **wanted)]

    async def get(self, spool_id: str) -> tuple[Row, bytes]:
        """One message: everything known of it, and its octets as they would be delivered."""
        found = await quarantine.get(self._store, spool_id)
        octets = (await blobs.read(self._store, [found.blob_id])).get(found.blob_id, b"")
        return _row(found), found.headers + found.prefix + octets

    async def release(self, spool_id: str) -> Row:
        done = await self._review.release(spool_id, self._by)
        names = [each.address for each in done.entry.recipients] if done else []
        return {"spool_id": spool_id, "recipients": names, "released_as": done.entry.spool_id if done else None}

    async def delete(self, spool_id: str) -> Row:
        return {"spool_id": spool_id, "recipients": await self._review.delete(spool_id, self._by)}

    async def train(self, spool_id: str) -> Row:
        return {"spool_id": spool_id, "recipients": await self._review.train(spool_id, self._by)}

    async def policy(self, name: str, **change: Any) -> Row:
        """Change what is not None of a domain's policy; the policy then."""
        async with self._store.begin("dev.held_policy") as conn:
            made = await quarantine.set_policy(conn, domain(name), **change)
        if made is None:
            raise Trouble(f"{name} is no domain of ours: `posta domain add {name}` makes it one")
        return {"domain": name, **made._asdict()}


def _row(found: Shown) -> Row:
    return {
        "spool_id": found.spool_id,
        "state": found.state,
        "received_at": found.received_at.isoformat(timespec="seconds"),
        "expires_at": found.expires_at.isoformat(timespec="seconds"),
        "sender": found.sender,
        "from": found.from_text,
        "subject": found.subject,
        "message_id": found.message_id,
        "size": found.size,
        "door": found.door,
        "client": found.client,
        "told_sender": "250" if found.accepted else "550",
        "kind": found.kind,
        "reason": found.reason,
        "score": found.score,
        "findings": found.findings,
        "recipients": [{"address": each.address, "state": each.state} for each in found.recipients],
    }
