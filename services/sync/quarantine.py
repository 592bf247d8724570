"""Held mail over the admin API: list, look, release, delete, train, and each domain's policy."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from services.core.bus import Bus
from services.core.review import Review
from services.core.store import blobs, quarantine
from services.core.store.accounts import NoSuchDomain
from services.core.store.engine import Store
from services.core.store.quarantine import NoSuchMessage
from services.sync.admin import Part
from services.sync.models import HeldMessage, HeldPolicy, HeldPolicyChange, Settled, plain
from services.sync.reach import Reach, Within

BY = "the admin API"
_Limit = Annotated[int, Query(ge=1, le=1000)]
_Text = Annotated[str, plain(320)]
_Age = Annotated[float, Query(ge=0, le=1e9, description="Held for at least so many seconds.")]


def part(review: Review) -> Part:
    """What the admin API has for held mail."""

    def install(api: APIRouter, store: Store, _bus: Bus) -> None:
        _messages(api, store, review)
        _policies(api, store)

    return install


def _messages(api: APIRouter, store: Store, review: Review) -> None:
    @api.get("/quarantine")
    async def list_held(
        reach: Within,
        domain: _Text = "",
        recipient: _Text = "",
        sender: _Text = "",
        age_s: _Age = 0,
        settled: bool = False,
        limit: _Limit = 100,
        before: _Text = "",
    ) -> list[HeldMessage]:
        """The newest first. `sender`: an address or a domain; `before`: the id that ended the page before."""
        rows = await quarantine.find(
            store,
            domain=domain,
            recipient=recipient,
            sender=sender,
            age_s=age_s,
            settled=settled,
            before=before,
            limit=limit,
            within=reach.domains,
        )
        return [HeldMessage.of(row) for row in rows]

    @api.get("/quarantine/{spool_id}")
    async def show_held(spool_id: _Text, reach: Within) -> HeldMessage:
        return HeldMessage.of(await quarantine.get(store, spool_id, reach.domains))

    @api.get("/quarantine/{spool_id}/message", response_class=Response)
    async def read_held(spool_id: _Text, reach: Within) -> Response:
        """The whole message as it would be delivered. Whoever opens it should know what was found in it."""
        row = await _received(store, spool_id, reach)
        octets = await blobs.read(store, [row.blob_id])
        if row.blob_id not in octets:
            raise NoSuchMessage(spool_id)
        headers = {
            "Content-Disposition": f'attachment; filename="{row.spool_id}.eml"',
            "X-Content-Type-Options": "nosniff",
        }
        return Response(row.headers + row.prefix + octets[row.blob_id], 200, headers, "message/rfc822")

    @api.post("/quarantine/{spool_id}/{verb}")
    async def settle_held(spool_id: _Text, verb: Literal["release", "delete", "train"], reach: Within) -> Settled:
        """For the recipients in the bearer's domains. `released_as`: the id that it is delivered under; empty
        recipients: it was settled before."""
        ns, by = [each.n for each in (await _received(store, spool_id, reach)).recipients], f"{BY} ({reach.token})"
        if verb == "release":
            done = await review.release(spool_id, by, ns)
            names = [each.address for each in done.entry.recipients] if done else []
            return Settled(spool_id=spool_id, recipients=names, released_as=done.entry.spool_id if done else None)
        gone = await (review.delete if verb == "delete" else review.train)(spool_id, by, ns)
        return Settled(spool_id=spool_id, recipients=gone)


async def _received(store: Store, spool_id: str, reach: Reach) -> quarantine.Shown:
    """The message, if it is held for people of the bearer's domains. Raises `NoSuchMessage`."""
    row = await quarantine.get(store, spool_id, reach.domains)
    # Whoever is named as its sender may not have written it, and has no say in other people's mail.
    if not row.recipients:
        raise NoSuchMessage(spool_id)
    return row


def _policies(api: APIRouter, store: Store) -> None:
    @api.get("/domains/{domain}/held")
    async def get_policy(domain: _Text) -> HeldPolicy:
        found = (await quarantine.policies(store, [domain.lower()])).get(domain.lower())
        if found is None:
            raise NoSuchDomain(domain)
        return HeldPolicy(**found._asdict())

    @api.patch("/domains/{domain}/held")
    async def change_policy(domain: _Text, change: HeldPolicyChange) -> HeldPolicy:
        """What is not given stays."""
        async with store.begin("admin.change") as conn:
            made = await quarantine.set_policy(conn, domain.lower(), **change.model_dump())
        if made is None:
            raise NoSuchDomain(domain)
        return HeldPolicy(**made._asdict())
