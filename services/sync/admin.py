"""The admin API: domains, accounts, aliases, quotas, passwords, the queue. What `posta` does on a shell, over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, TypeAlias

from fastapi import APIRouter, Depends, HTTPException, Path, Query

from services.core.auth.enroll import add_app_password, set_password
from services.core.bus import Bus
from services.core.directory import announce
from services.core.store import accounts, credentials, sending
from services.core.store.engine import Connection, Store
from services.core.store.replica import listed
from services.sync.guard import Guard
from services.sync.models import (
    Account,
    AccountChange,
    Alias,
    AppPassword,
    Domain,
    NewAccount,
    NewAppPassword,
    Password,
    Quota,
    SendingLimits,
    ShownAppPassword,
    plain,
)
from services.sync.outbound import queue_part
from services.sync.problems import Problem
from services.sync.reach import Reach, Within

_REPLIES = (401, 403, 404, 409, 413, 422, 429, 503)
_CHANGE, _LOOK = "admin.change", "admin.look"

Part: TypeAlias = Callable[[APIRouter, Store, Bus], None]

_Limit = Annotated[int, Query(ge=1, le=1000)]
_Text = Annotated[str, plain(320)]


def router(store: Store, bus: Bus, guard: Guard, *more: Part) -> APIRouter:
    """The API under `/api/v1`, with `more` parts of it, for whom `guard` admits."""
    api = APIRouter(
        prefix="/api/v1",
        # The line that tells of a change is written before its answer goes out.
        dependencies=[Depends(guard.admit, scope="function")],
        tags=["admin"],
        responses={status: {"model": Problem} for status in _REPLIES},
    )
    for part in (_domains, _accounts, _passwords, _aliases, queue_part, *more):
        part(api, store, bus)
    return api


def _domains(api: APIRouter, store: Store, bus: Bus) -> None:
    @api.get("/domains")
    async def list_domains(reach: Within, limit: _Limit = 100, after: _Text = "") -> list[Domain]:
        page = partial(accounts.list_domains, limit=limit, after=after, within=reach.domains)
        rows = await listed(store, _LOOK, page)
        return [Domain(domain=d) for d in rows]

    @api.post("/domains", status_code=201)
    async def create_domain(new: Domain) -> Domain:
        async with store.begin(_CHANGE) as conn:
            made = await accounts.create_domain(conn, new.domain)
        await announce(bus, domain=made)
        return Domain(domain=made)

    @api.delete("/domains/{domain}", status_code=204)
    async def delete_domain(domain: _Text) -> None:
        async with store.begin(_CHANGE) as conn:
            await accounts.delete_domain(conn, domain)
        await announce(bus)


def _accounts(api: APIRouter, store: Store, bus: Bus) -> None:
    @api.get("/accounts")
    async def list_accounts(reach: Within, domain: _Text = "", limit: _Limit = 100, after: _Text = "") -> list[Account]:
        page = partial(accounts.list_accounts, domain=domain.lower(), limit=limit, after=after, within=reach.domains)
        rows = await listed(store, _LOOK, page)
        return [Account.of(row) for row in rows]

    @api.post("/accounts", status_code=201)
    async def create_account(new: NewAccount, reach: Within) -> Account:
        reach.check(new.address)
        async with store.begin(_CHANGE) as conn:
            account_id = await accounts.create(
                conn, new.address, display_name=new.display_name, quota_octets=new.quota_octets
            )
            if new.password is not None:
                await set_password(conn, account_id, new.password.get_secret_value())
            made = await accounts.get_by_id(conn, account_id)
        await announce(bus, domain=made.address.rpartition("@")[2])
        return Account.of(made)

    @api.get("/accounts/{address}")
    async def get_account(address: _Text, reach: Within) -> Account:
        async with store.query(_LOOK) as conn:
            return Account.of(await _account(conn, address, reach))

    @api.patch("/accounts/{address}")
    async def change_account(address: _Text, change: AccountChange, reach: Within) -> Account:
        if change.sending is not None and reach.domains is not None:
            raise HTTPException(403, "What an account may send is for the platform's own token")
        async with store.begin(_CHANGE) as conn:
            account_id = (await _account(conn, address, reach)).account_id
            if change.display_name is not None:
                await accounts.rename(conn, account_id, change.display_name)
            if change.suspended is not None:
                await (accounts.suspend if change.suspended else accounts.activate)(conn, account_id)
            if change.sending is not None:
                await sending.resume(conn, account_id)
            changed = await accounts.get_by_id(conn, account_id)
        await announce(bus, account_id=account_id)
        return Account.of(changed)

    @api.put("/accounts/{address}/sending-limits")
    async def change_sending_limits(address: _Text, limits: SendingLimits) -> Account:
        async with store.begin(_CHANGE) as conn:
            account_id = (await accounts.get(conn, address)).account_id
            await sending.set_limits(conn, account_id, limits.send_hour, limits.send_day)
            changed = await accounts.get_by_id(conn, account_id)
        await announce(bus, account_id=account_id)
        return Account.of(changed)

    @api.delete("/accounts/{address}", status_code=204)
    async def delete_account(address: _Text, reach: Within) -> None:
        async with store.begin(_CHANGE) as conn:
            account_id = (await _account(conn, address, reach)).account_id
            await accounts.delete(conn, account_id)
        await announce(bus, account_id=account_id)

    @api.put("/accounts/{address}/quota")
    async def change_quota(address: _Text, quota: Quota, reach: Within) -> Account:
        async with store.begin(_CHANGE) as conn:
            account_id = (await _account(conn, address, reach)).account_id
            await accounts.set_quota(conn, account_id, quota.quota_octets)
            changed = await accounts.get_by_id(conn, account_id)
        await announce(bus, account_id=account_id)
        return Account.of(changed)


async def _account(conn: Connection, address: str, reach: Reach) -> accounts.Account:
    """The account, if its own address is in reach. Raises `NoSuchAccount`, `BadAddress`."""
    found = await accounts.get(conn, address)
    # A further address of it may be of another domain, whose people have no say in it.
    if not reach.holds(found.address):
        raise accounts.NoSuchAccount(address)
    return found


def _passwords(api: APIRouter, store: Store, bus: Bus) -> None:
    @api.put("/accounts/{address}/password", status_code=204)
    async def change_password(address: _Text, new: Password, reach: Within) -> None:
        async with store.begin(_CHANGE) as conn:
            account_id = (await _account(conn, address, reach)).account_id
            await set_password(conn, account_id, new.password.get_secret_value())
        await announce(bus, account_id=account_id)

    @api.get("/accounts/{address}/app-passwords")
    async def list_app_passwords(address: _Text, reach: Within) -> list[AppPassword]:
        async with store.query(_LOOK) as conn:
            account_id = (await _account(conn, address, reach)).account_id
            rows = await credentials.list_credentials(conn, account_id)
        return [AppPassword.of(row) for row in rows if row.kind == credentials.APP]

    @api.post("/accounts/{address}/app-passwords", status_code=201)
    async def add_password(address: _Text, new: NewAppPassword, reach: Within) -> ShownAppPassword:
        """Makes one. The answer is the only time that it can be seen."""
        async with store.begin(_CHANGE) as conn:
            account_id = (await _account(conn, address, reach)).account_id
            number, password = await add_app_password(conn, account_id, new.label, sorted(set(new.scopes)))
            made = next(row for row in await credentials.list_credentials(conn, account_id) if row[0] == number)
        await announce(bus, account_id=account_id)
        return ShownAppPassword(**AppPassword.of(made).model_dump(), password=password)

    @api.delete("/accounts/{address}/app-passwords/{number}", status_code=204)
    async def remove_app_password(
        address: _Text, number: Annotated[int, Path(ge=1, lt=1 << 63)], reach: Within
    ) -> None:
        async with store.begin(_CHANGE) as conn:
            account_id = (await _account(conn, address, reach)).account_id
            rows = await credentials.list_credentials(conn, account_id)
            # The account's own password is not an app password, whatever its number.
            if not any(row.credential_id == number and row.kind == credentials.APP for row in rows):
                raise credentials.NoSuchCredential(number)
            await credentials.remove(conn, account_id, number)
        await announce(bus, account_id=account_id)


def _aliases(api: APIRouter, store: Store, bus: Bus) -> None:
    @api.get("/aliases")
    async def list_aliases(
        reach: Within, domain: _Text = "", target: _Text = "", limit: _Limit = 100, after: _Text = ""
    ) -> list[Alias]:
        page = partial(
            accounts.list_aliases,
            domain=domain.lower(),
            target=target,
            limit=limit,
            after=after,
            within=reach.domains,
        )
        rows = await listed(store, _LOOK, page)
        return [Alias(address=row.address, targets=list(row.targets)) for row in rows]

    @api.post("/aliases", status_code=201)
    async def add_alias(new: Alias, reach: Within) -> Alias:
        reach.check(new.address)
        async with store.begin(_CHANGE) as conn:
            await accounts.add_alias(conn, new.address, new.targets)
        await announce(bus)
        return new

    @api.delete("/aliases/{address}", status_code=204)
    async def remove_alias(address: _Text, reach: Within, target: Annotated[str | None, plain(320)] = None) -> None:
        reach.check(address)
        async with store.begin(_CHANGE) as conn:
            await accounts.remove_alias(conn, address, target)
        await announce(bus)
