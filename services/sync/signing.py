"""The admin API's part about DKIM keys: what `posta domain dkim` does, over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from services.core.bus import Bus
from services.core.directory import announce
from services.core.dkim import zone
from services.core.dkim.rotation import Rotation
from services.core.dns import Dns
from services.core.store import dkim
from services.core.store.engine import Store
from services.sync.models import plain

_Domain = Annotated[str, plain(255)]


class DkimKey(BaseModel):
    """A key of a domain, and the TXT record that its DNS has to show."""

    domain: str
    selector: str
    algorithm: str
    state: str
    created_at: datetime
    state_since: datetime
    name: str
    value: str
    zone: str

    @classmethod
    def of(cls, key: dkim.Key) -> DkimKey:
        """From the store's row."""
        return cls(
            **{name: getattr(key, name) for name in cls.model_fields.keys() - {"name", "value", "zone"}},
            name=zone.name(key.domain, key.selector),
            value=zone.value(key.algorithm, key.public_key),
            zone=zone.line(key.domain, key.selector, key.algorithm, key.public_key),
        )


class OtherKey(BaseModel):
    """A private key as PEM, without a passphrase, and the selector that it has been used under."""

    model_config = ConfigDict(extra="forbid")

    selector: Annotated[str, plain(63)]
    private_key: Annotated[SecretStr, Field(max_length=10_000)]


def keys(resolver: Callable[[], Dns], secret: SecretStr | None) -> Callable[[APIRouter, Store, Bus], None]:
    """A part for `admin.router`. `resolver` makes one without memory; `secret` as `dkim.key_secret` is set."""

    def part(api: APIRouter, store: Store, bus: Bus) -> None:
        rotation = Rotation(store, resolver, secret)

        @api.get("/domains/{domain}/dkim")
        async def list_dkim_keys(domain: _Domain) -> list[DkimKey]:
            return list(map(DkimKey.of, await rotation.keys(domain)))

        @api.post("/domains/{domain}/dkim", status_code=201)
        async def publish_dkim_keys(domain: _Domain) -> list[DkimKey]:
            """Makes the next pair, or the first, unless one waits to be activated already."""
            return list(map(DkimKey.of, await rotation.rotate(domain)))

        @api.post("/domains/{domain}/dkim/import", status_code=201)
        async def import_dkim_key(domain: _Domain, key: OtherKey) -> list[DkimKey]:
            """Takes the key of another signer, to be activated."""
            return list(map(DkimKey.of, await rotation.adopt(domain, key.selector, key.private_key.get_secret_value())))

        @api.post("/domains/{domain}/dkim/activate")
        async def activate_dkim_keys(domain: _Domain, force: bool = False) -> list[DkimKey]:
            """Signs with the published pair once the DNS shows it, or without asking the DNS; the old one retires."""
            found = await rotation.activate(domain, force=force)
            await announce(bus, domain=found[0].domain)
            return list(map(DkimKey.of, found))

        @api.delete("/domains/{domain}/dkim/retired")
        async def remove_dkim_keys(domain: _Domain) -> list[DkimKey]:
            """Deletes the keys that have been retired for a week; their records may leave the zone."""
            return list(map(DkimKey.of, await rotation.remove(domain)))

    return part
