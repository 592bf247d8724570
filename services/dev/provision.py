"""Who may have mail here, changed in Postgres; caches are told once a change is committed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Self

from services.admin.restore import NotRestored, Restoration
from services.core import directory
from services.core.address import BadAddress
from services.core.auth import enroll
from services.core.auth.passwords import BadPassword
from services.core.dkim.keys import KeyUnusable
from services.core.dkim.rotation import Rotation, RotationRefused
from services.core.dns import Dns
from services.core.foldername import BadName
from services.core.ids import AccountId
from services.core.settings import Settings
from services.core.store import accounts, beside, sending
from services.core.store.dkim import Key
from services.core.store.engine import Store, StoreUnavailable
from services.dev.quiet import bus_at
from services.dev.trouble import Trouble

Row = dict[str, Any]
PAGE = 1000

_WORDS: dict[type[accounts.AccountError], str] = {
    accounts.AlreadyExists: "{} exists already",
    accounts.NoSuchDomain: "{0} is no domain of ours: `posta domain add {0}` makes it one",
    accounts.NoSuchAccount: "there is no account {}",
    accounts.NoSuchAddress: "there is no alias {}",
    accounts.InUse: "{} is still in use",
}


class Provisioning:
    """The verbs' way to the store; use `Provisioning.at`. Methods raise `accounts.AccountError` and its like."""

    def __init__(self, store: Store, nats_url: str) -> None:
        self._store, self._nats_url = store, nats_url

    @classmethod
    @asynccontextmanager
    async def at(cls, database_url: str, nats_url: str = "") -> AsyncIterator[Self]:
        """Provisioning in this database for the block; what the store refuses leaves the block as a Trouble.

        `nats_url`: where caches hear of changes; empty where no service runs that could have one.
        """
        store = Store(database_url, pool=1)
        try:
            yield cls(store, nats_url)
        except accounts.AccountError as error:
            raise Trouble(_WORDS[type(error)].format(error)) from None
        except (BadAddress, BadName, BadPassword) as error:
            raise Trouble(str(error), 2) from None
        except (RotationRefused, KeyUnusable, NotRestored, beside.Unfit) as error:
            raise Trouble(str(error)) from None
        except StoreUnavailable as error:
            raise Trouble(f"the store cannot be reached: {error}") from None
        finally:
            await store.close()

    @property
    def store(self) -> Store:
        """The store, for what provisions on its own."""
        return self._store

    def rotation(self, settings: Settings) -> Rotation:
        """DKIM keys in this store, sealed and looked up as the settings say."""
        servers = settings.dns
        return Rotation(self._store, lambda: Dns(servers.servers, servers.timeout_s), settings.dkim.key_secret)

    async def tell(self, domain: str, account_id: AccountId | None) -> None:
        """Let caches know of a change that was made in the store."""
        await self._tell(domain, account_id)

    # ---- domains -----------------------------------------------------------------------------------------------

    async def add_domain(self, name: str) -> Row:
        async with self._store.begin("dev.add_domain") as conn:
            made = await accounts.create_domain(conn, name)
        await self._tell(domain=made)
        return {"domain": made}

    async def ensure_domain(self, name: str) -> None:
        try:
            await self.add_domain(name)
        except accounts.AlreadyExists:
            return

    async def domains(self) -> list[Row]:
        found: list[Row] = []
        async with self._store.read("dev.domains") as conn:
            while page := await accounts.list_domains(conn, limit=PAGE, after=found[-1]["domain"] if found else ""):
                found += ({"domain": name} for name in page)
        return found

    async def remove_domain(self, name: str) -> Row:
        async with self._store.begin("dev.remove_domain") as conn:
            await accounts.delete_domain(conn, name)
        await self._tell(domain=name)
        return {"domain": name}

    async def dkim(
        self, verb: str, domain: str, settings: Settings, *, force: bool = False, adopt: tuple[str, str] | None = None
    ) -> list[Key]:
        """The domain's DKIM keys after `show`, `rotate`, `import` or `activate`; after `remove`, what was removed.

        `adopt`: selector and PEM of the key to be imported.
        """
        rotation = self.rotation(settings)
        if adopt is not None:
            return await rotation.adopt(domain, *adopt)
        match verb:
            case "show":
                return await rotation.first(domain)  # new keys sign nothing: there is nobody to tell
            case "rotate":
                return await rotation.rotate(domain)
            case "activate":
                keys = await rotation.activate(domain, force=force)
            case _:
                keys = await rotation.remove(domain)
        await self._tell(domain=keys[0].domain)
        return keys

    # ---- accounts ----------------------------------------------------------------------------------------------

    async def add_account(self, address: str, password: str, name: str = "", quota_octets: int | None = None) -> Row:
        """Make an account that can log in at once: both or neither."""
        async with self._store.begin("dev.add_account") as conn:
            account_id = await accounts.create(conn, address, display_name=name, quota_octets=quota_octets)
            await enroll.set_password(conn, account_id, password)
            made = await accounts.get_by_id(conn, account_id)
        # The address may be remembered as unknown.
        await self._tell(domain=made.address.rpartition("@")[2], account_id=account_id)
        return _row(made)

    async def ensure_account(self, address: str, password: str, name: str) -> None:
        try:
            await self.add_account(address, password, name)
        except accounts.AlreadyExists:
            return

    async def accounts(self, domain: str = "") -> list[Row]:
        found: list[Row] = []
        async with self._store.read("dev.accounts") as conn:
            while page := await accounts.list_accounts(
                conn, domain=domain.lower(), limit=PAGE, after=found[-1]["address"] if found else ""
            ):
                found += map(_row, page)
        return found

    async def account(self, address: str) -> Row:
        async with self._store.read("dev.account") as conn:
            found = await accounts.get(conn, address)
            return {**_row(found), "addresses": await accounts.list_addresses(conn, found.account_id)}

    async def set_password(self, address: str, password: str) -> Row:
        async with self._store.begin("dev.set_password") as conn:
            found = await accounts.get(conn, address)
            await enroll.set_password(conn, found.account_id, password)
        return await self._changed(found.account_id)

    async def set_status(self, address: str, status: str) -> Row:
        change = accounts.suspend if status == accounts.SUSPENDED else accounts.activate
        async with self._store.begin("dev.set_status") as conn:
            found = await accounts.get(conn, address)
            await change(conn, found.account_id)
            if status == accounts.ACTIVE:
                await sending.resume(conn, found.account_id)
        return await self._changed(found.account_id)

    async def set_quota(self, address: str, octets: int | None) -> Row:
        async with self._store.begin("dev.set_quota") as conn:
            found = await accounts.get(conn, address)
            await accounts.set_quota(conn, found.account_id, octets)
        return await self._changed(found.account_id)

    async def set_sending(self, address: str, hour: int | None, day: int | None) -> Row:
        async with self._store.begin("dev.set_sending") as conn:
            found = await accounts.get(conn, address)
            await sending.set_limits(conn, found.account_id, hour, day)
        return await self._changed(found.account_id)

    async def remove_account(self, address: str) -> Row:
        async with self._store.begin("dev.remove_account") as conn:
            found = await accounts.get(conn, address)
            await accounts.delete(conn, found.account_id)
        await self._tell(account_id=found.account_id)
        return _row(found)

    async def restore_account(self, address: str, source: str, into: str, since: datetime | None) -> Row:
        """Bring back what the account held in the store at `source`: how many messages came to which folder."""
        came: dict[str, int] = {}
        async with beside.opened(source, self._store) as there, bus_at(self._nats_url) as bus:
            async for path, count in Restoration(self._store, there, bus).run(address, into, since):
                came[path] = count
        return {"address": address, "restored": sum(came.values()), "folders": came}

    # ---- aliases -----------------------------------------------------------------------------------------------

    async def add_alias(self, address: str, target: str) -> Row:
        async with self._store.begin("dev.add_alias") as conn:
            await accounts.add_alias(conn, address, [target])
        await self._tell()
        return {"address": address, "target": target}

    async def aliases(self, domain: str = "") -> list[Row]:
        found: list[Row] = []
        async with self._store.read("dev.aliases") as conn:
            while page := await accounts.list_aliases(
                conn, domain=domain.lower(), limit=PAGE, after=found[-1]["address"] if found else ""
            ):
                found += ({"address": each.address, "targets": list(each.targets)} for each in page)
        return found

    async def remove_alias(self, address: str, target: str = "") -> Row:
        async with self._store.begin("dev.remove_alias") as conn:
            await accounts.remove_alias(conn, address, target or None)
        await self._tell()
        return {"address": address, "target": target or None}

    async def _changed(self, account_id: AccountId) -> Row:
        await self._tell(account_id=account_id)
        async with self._store.read("dev.account") as conn:
            return _row(await accounts.get_by_id(conn, account_id))

    async def _tell(self, domain: str = "", account_id: AccountId | None = None) -> None:
        if self._nats_url:
            async with bus_at(self._nats_url) as bus:
                await directory.announce(bus, domain=domain, account_id=account_id)


def _row(account: accounts.Account) -> Row:
    return {
        "address": account.address,
        "name": account.display_name,
        "status": account.status,
        "quota_octets": account.quota_octets,
        "used_octets": account.used_octets,
        "messages": account.used_items,
        "sending": account.sending,
        "send_hour": account.send_hour,
        "send_day": account.send_day,
        "account_id": account.account_id,
        "created_at": account.created_at.isoformat(timespec="seconds"),
    }
