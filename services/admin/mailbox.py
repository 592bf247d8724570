"""A mailbox for a probe: made when it is needed, given up when it is not."""

from __future__ import annotations

from services.core.auth import enroll
from services.core.bus import Bus
from services.core.directory import announce
from services.core.store import accounts
from services.core.store.engine import Store


async def take(store: Store, bus: Bus, login: tuple[str, str]) -> None:
    """Make the account and its domain where they are missing; its password is `login[1]` from now on."""
    address, password = login
    domain = address.rpartition("@")[2]
    async with store.begin("admin.mailbox") as conn:
        if domain not in await accounts.list_domains(conn, limit=1000, after=domain[:-1]):
            await accounts.create_domain(conn, domain)
        try:
            account_id = (await accounts.get(conn, address)).account_id
        except accounts.NoSuchAccount:
            account_id = await accounts.create(conn, address, display_name="Posta looks after itself")
        await enroll.set_password(conn, account_id, password)
    await announce(bus, domain=domain)
    await announce(bus, account_id=account_id)
    await bus.settled()


async def give_up(store: Store, bus: Bus, address: str) -> None:
    """Delete the account with what it holds."""
    async with store.begin("admin.mailbox") as conn:
        account_id = (await accounts.get(conn, address)).account_id
        await accounts.delete(conn, account_id)
    await announce(bus, account_id=account_id)
