"""A domain's keys from the first pair to the removal of an old one, on a real store and against a real DNS server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import SecretStr
from sqlalchemy import text

from services.core.address import BadAddress
from services.core.dkim import rotation, zone
from services.core.dkim.keys import ED25519, RSA, load, make
from services.core.dkim.rotation import Rotation, RotationRefused
from services.core.dns import Dns
from services.core.store import accounts, dkim
from services.core.store.accounts import NoSuchDomain
from services.core.store.dkim import ACTIVE, PUBLISHED, RETIRED, Key
from services.core.store.engine import Store
from tests.unit.core.dkim.resolver import Zone


@pytest.fixture
async def keys(store: Store, dns_zone: Zone) -> Rotation:
    async with store.begin("test") as conn:
        await accounts.create_domain(conn, "posta.test")
    return Rotation(store, lambda: Dns((f"127.0.0.1:{dns_zone.port}",)), None)


def states(found: Sequence[Key]) -> list[tuple[str, str]]:
    return sorted((key.algorithm, key.state) for key in found)


def show(dns_zone: Zone, found: Sequence[Key]) -> None:
    """What the postmaster does with what `posta domain dkim` prints."""
    for key in found:
        line = zone.line(key.domain, key.selector, key.algorithm, key.public_key)
        name, data = re.fullmatch(r"(\S+)\. 3600 IN TXT \( (.*) \)", line).groups()  # type: ignore[union-attr]
        dns_zone.texts[name] = [data]


async def test_a_rotation_from_beginning_to_end(keys: Rotation, store: Store, dns_zone: Zone) -> None:
    assert await keys.keys("posta.test") == []
    first = await keys.first("Posta.TEST")
    assert states(first) == [("ed25519", PUBLISHED), ("rsa", PUBLISHED)]
    assert await keys.first("posta.test") == first
    assert await keys.rotate("posta.test") == first  # one pair at a time waits for its records

    show(dns_zone, first)
    assert states(await keys.activate("posta.test")) == [("ed25519", ACTIVE), ("rsa", ACTIVE)]
    assert states(await keys.first("posta.test")) == [("ed25519", ACTIVE), ("rsa", ACTIVE)]
    with pytest.raises(RotationRefused, match="wait"):
        await keys.activate("posta.test")

    both = await keys.rotate("posta.test")
    assert states(both) == [("ed25519", ACTIVE), ("ed25519", PUBLISHED), ("rsa", ACTIVE), ("rsa", PUBLISHED)]
    assert len({key.selector for key in both}) == len({key.public_key for key in both}) == 4
    async with store.query("test") as conn:
        assert {s.selector for s in await dkim.signers(conn, "posta.test")} == {key.selector for key in first}
    show(dns_zone, both)
    after = await keys.activate("posta.test")
    assert states(after) == [("ed25519", ACTIVE), ("ed25519", RETIRED), ("rsa", ACTIVE), ("rsa", RETIRED)]
    assert {key.selector for key in after if key.state == RETIRED} == {key.selector for key in first}
    async with store.query("test") as conn:
        signing = {s.selector for s in await dkim.signers(conn, "posta.test")}
    assert signing == {key.selector for key in after if key.state == ACTIVE}

    with pytest.raises(RotationRefused, match="7 days"):
        await keys.remove("posta.test")
    async with store.begin("test") as conn:
        await conn.execute(text("UPDATE dkim_keys SET state_since = state_since - interval '8 days'"))
    assert {key.selector for key in await keys.remove("posta.test")} == {key.selector for key in first}
    assert states(await keys.keys("posta.test")) == [("ed25519", ACTIVE), ("rsa", ACTIVE)]


async def test_keys_are_not_used_before_the_dns_shows_them(keys: Rotation, dns_zone: Zone) -> None:
    first = await keys.first("posta.test")
    with pytest.raises(RotationRefused) as refused:
        await keys.activate("posta.test")
    assert all(zone.name("posta.test", key.selector) in str(refused.value) for key in first)
    show(dns_zone, first[:1])
    with pytest.raises(RotationRefused, match=first[1].selector):
        await keys.activate("posta.test")
    # The name is remembered nowhere as missing: the record is seen as soon as it is there.
    show(dns_zone, first)
    assert states(await keys.activate("posta.test")) == [("ed25519", ACTIVE), ("rsa", ACTIVE)]


async def test_a_record_of_another_key_is_not_taken_for_it(keys: Rotation, dns_zone: Zone) -> None:
    first = await keys.first("posta.test")
    show(dns_zone, first)
    dns_zone.texts[zone.name("posta.test", first[0].selector)] = ['"v=DKIM1; k=rsa; p=AAAA"']
    with pytest.raises(RotationRefused, match="another record"):
        await keys.activate("posta.test")


async def test_a_dns_that_does_not_answer_stops_an_activation_unless_forced(keys: Rotation, dns_zone: Zone) -> None:
    await keys.first("posta.test")
    dns_zone.broken = True
    with pytest.raises(RotationRefused, match="does not answer"):
        await keys.activate("posta.test")
    assert states(await keys.activate("posta.test", force=True)) == [("ed25519", ACTIVE), ("rsa", ACTIVE)]


async def test_a_key_of_another_signer_goes_on_signing(keys: Rotation, store: Store, dns_zone: Zone) -> None:
    old = generate_private_key(65537, 1024)
    pem = old.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
    adopted = await keys.adopt("posta.test", "mail", pem)
    assert [(key.selector, key.algorithm, key.state) for key in adopted] == [("mail", RSA, PUBLISHED)]
    assert await keys.first("posta.test") == adopted  # no pair beside it
    with pytest.raises(RotationRefused, match="mail already"):
        await keys.adopt("posta.test", "MAIL", pem)
    show(dns_zone, adopted)
    await keys.activate("posta.test")
    async with store.query("test") as conn:
        [signer] = await dkim.signers(conn, "posta.test")
    assert load("posta.test", *signer, None).private.private_numbers() == old.private_numbers()  # type: ignore[union-attr]
    await keys.rotate("posta.test")
    assert states(await keys.activate("posta.test", force=True)) == [
        ("ed25519", ACTIVE),
        ("rsa", ACTIVE),
        ("rsa", RETIRED),
    ]


@pytest.mark.parametrize("selector", ["", "no label", "-x", "x..y"])
async def test_a_selector_that_is_no_name(keys: Rotation, selector: str) -> None:
    with pytest.raises(BadAddress):
        await keys.adopt("posta.test", selector, make(ED25519, None).private_key)


async def test_two_at_once_make_one_pair(keys: Rotation) -> None:
    one, other = await asyncio.gather(keys.first("posta.test"), keys.first("posta.test"))
    assert one == other
    assert len(one) == 2


async def test_two_at_once_activate_one_pair(keys: Rotation) -> None:
    await keys.first("posta.test")
    results = await asyncio.gather(*(keys.activate("posta.test", force=True) for _ in range(2)), return_exceptions=True)
    assert any(not isinstance(each, BaseException) for each in results)
    assert states(await keys.keys("posta.test")) == [("ed25519", ACTIVE), ("rsa", ACTIVE)]


async def test_a_domain_that_is_not_ours_has_no_keys(keys: Rotation) -> None:
    for ask in (keys.keys, keys.first, keys.rotate, keys.activate, keys.remove):
        with pytest.raises(NoSuchDomain):
            await ask("elsewhere.test")


async def test_keys_go_with_their_domain(keys: Rotation, store: Store) -> None:
    await keys.first("posta.test")
    async with store.begin("test") as conn:
        await accounts.delete_domain(conn, "posta.test")
        await accounts.create_domain(conn, "posta.test")
    assert await keys.keys("posta.test") == []


async def test_private_keys_rest_encrypted_where_a_secret_is_set(keys: Rotation, store: Store) -> None:
    sealed = Rotation(store, Dns, SecretStr("a long secret"))
    await sealed.first("posta.test")
    await sealed.activate("posta.test", force=True)
    async with store.query("test") as conn:
        for signer in await dkim.signers(conn, "posta.test"):
            assert signer.private_key.startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")


def test_more_than_a_pair_a_day_has_names_of_its_own() -> None:
    day = datetime(2026, 11, 25, tzinfo=UTC)
    assert rotation._selector(day, set()) == "20261125"
    assert rotation._selector(day, {"20261125-rsa"}) == "20261125n2"
    assert rotation._selector(day, {"20261125-rsa", "20261125n2-ed25519"}) == "20261125n3"
