"""The admin API's part about mail to other domains: the queue, and the rules that lead it elsewhere than MX does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field, SecretStr, model_validator

from services.core.bus import Bus
from services.core.directory import announce
from services.core.outbound import Outbound
from services.core.seal import Seal
from services.core.store import queued, routes
from services.core.store.engine import Store
from services.core.store.queued import Selection
from services.sync.models import Given, plain

_Limit = Annotated[int, Query(ge=1, le=1000)]
_Text = Annotated[str, plain(320)]
_Id = Annotated[str, plain(64)]
_AGE_MAX_S = 10 * 365 * 86_400
_SENDER = "An address, @domain, or <> for notices."


class Queued(BaseModel):
    """One recipient of another domain in the queue. `n`: its number in the message."""

    spool_id: str
    n: int
    address: str
    sender: str
    size: int
    state: Literal["fresh", "waiting", "due", "sending", "held"]
    attempts: int
    received_at: datetime
    due_at: datetime
    last_reply: str | None
    last_host: str | None
    leased_by: str | None

    @classmethod
    def of(cls, row: queued.Queued) -> Queued:
        """From the store's row."""
        return cls(**row._asdict())


class Message(BaseModel):
    """A message in the queue: its recipients, and its header as text."""

    recipients: list[Queued]
    header: str


class Meant(Given):
    """Which recipients: those that all of these fit. `everybody` must be said in so many words."""

    spool_ids: Annotated[tuple[_Id, ...], Field(max_length=1000)] = ()
    domain: _Text = ""
    sender: Annotated[str, plain(320), Field(description=_SENDER)] = ""
    older_than_s: Annotated[float, Field(ge=0, le=_AGE_MAX_S)] = 0
    everybody: bool = False

    @model_validator(mode="after")
    def _says_something(self) -> Meant:
        if not (self.spool_ids or self.domain or self.sender or self.older_than_s or self.everybody):
            raise ValueError("spool_ids, domain, sender, older_than_s or everybody is needed")
        return self

    def selection(self) -> Selection:
        """As the store has it."""
        return queued.meant(self.spool_ids, self.domain, self.sender, self.older_than_s)


class Dropped(Meant):
    """Which recipients are given up. `bounce`: their senders are told, for this reason."""

    bounce: bool = False
    reason: Annotated[str, plain(400), Field(min_length=1)] = "Given up by the postmaster"


class Changed(BaseModel):
    """How many recipients were changed."""

    recipients: int


class Route(Given):
    """Mail of `sender` to `recipient` goes through `host`; host "" is by MX, against a wider rule.

    `sender`: an address, @domain, or "" for everybody; `recipient`: a domain, .domain for those below it, or "".
    """

    sender: _Text = ""
    recipient: _Text = ""
    host: Annotated[str, plain(255)]
    port: Annotated[int, Field(ge=1, le=65535)] = 587
    implicit_tls: bool = False
    username: Annotated[str, plain(256)] = ""

    @classmethod
    def of(cls, rule: routes.Rule) -> Route:
        """From the store's row, without the password."""
        return cls(**{name: getattr(rule, name) for name in cls.model_fields})


class NewRoute(Route):
    """A rule to be made, instead of the one for the same mail if there is one."""

    password: Annotated[SecretStr, Field(max_length=1024)] = SecretStr("")


def queue_part(api: APIRouter, store: Store, bus: Bus) -> None:
    """Add the queue."""
    outbound = Outbound(store, bus, service="sync")

    @api.get("/queue")
    async def list_queue(
        domain: _Text = "",
        sender: Annotated[str, plain(320), Query(description=_SENDER)] = "",
        older_than_s: Annotated[float, Query(ge=0, le=_AGE_MAX_S)] = 0,
        limit: _Limit = 100,
        after: _Id = "",
        after_n: Annotated[int, Query(ge=-1, lt=1 << 31)] = -1,
    ) -> list[Queued]:
        """A page, oldest messages first, from the recipient behind `after` and `after_n` on."""
        selection = queued.meant((), domain, sender, older_than_s)
        return [Queued.of(row) for row in await outbound.entries(selection, limit=limit, after=(after, after_n))]

    @api.get("/queue/{spool_id}")
    async def show_queued(spool_id: _Id) -> Message:
        rows = await outbound.entries(Selection((spool_id,)), limit=1000)
        if not rows:
            raise queued.NotQueued(f"{spool_id} has no recipients in the queue")
        return Message(recipients=[Queued.of(row) for row in rows], header=await outbound.header(spool_id))

    @api.post("/queue/retry")
    async def retry_queued(which: Meant) -> Changed:
        """Attempts them now. Held ones stay held, and what is being sent is let finish."""
        return Changed(recipients=await outbound.retry(which.selection()))

    @api.post("/queue/hold")
    async def hold_queued(which: Meant) -> Changed:
        """Attempts them no more until they are released."""
        return Changed(recipients=await outbound.hold(which.selection()))

    @api.post("/queue/release")
    async def release_queued(which: Meant) -> Changed:
        """Attempts held ones now."""
        return Changed(recipients=await outbound.release(which.selection()))

    @api.post("/queue/drop")
    async def drop_queued(which: Dropped) -> Changed:
        """Gives them up; what is being sent just now is left alone."""
        if which.bounce:
            return Changed(recipients=await outbound.bounce(which.selection(), which.reason))
        return Changed(recipients=await outbound.drop(which.selection()))


class Sealed(BaseModel):
    """How many passwords were sealed anew."""

    routes: int


def routes_part(seal: Seal) -> Callable[[APIRouter, Store, Bus], None]:
    """The smarthost rules."""

    def install(api: APIRouter, store: Store, bus: Bus) -> None:
        @api.get("/routes")
        async def list_routes() -> list[Route]:
            async with store.query("admin.look") as conn:
                return [Route.of(rule) for rule in await routes.every(conn)]

        @api.post("/routes", status_code=201)
        async def add_route(new: NewRoute) -> Route:
            given = new.model_dump() | {"password": new.password.get_secret_value()}
            made = routes.rule(given.pop("host"), **given)
            async with store.begin("admin.change") as conn:
                await routes.put(conn, made, seal)
            await announce(bus)
            return Route.of(made)

        @api.post("/routes/seal")
        async def seal_routes() -> Sealed:
            """Seals the passwords by the newest secret: those of `seal.former`, and those in the clear."""
            async with store.begin("admin.change") as conn:
                count = await routes.reseal(conn, seal)
            await announce(bus)
            return Sealed(routes=count)

        @api.delete("/routes", status_code=204)
        async def remove_route(sender: _Text = "", recipient: _Text = "") -> None:
            async with store.begin("admin.change") as conn:
                await routes.remove(conn, sender=sender, recipient=recipient)
            await announce(bus)

    return install
