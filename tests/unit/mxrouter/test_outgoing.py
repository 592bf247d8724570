"""What leaves: whose signature it gets, under which sender it goes, and how a bounce finds back. On a real store."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import dkim
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from services.core.address import parse
from services.core.bus import Bus
from services.core.directory import Directory, Expanded, Remote, Unknown, announce
from services.core.dkim import zone
from services.core.dkim.keys import KeyUnusable
from services.core.dkim.rotation import Rotation
from services.core.dns import Dns
from services.core.ids import AccountId, new_spool_id
from services.core.intake import Intake
from services.core.smtp import replies, session
from services.core.smtp.hooks import Refused
from services.core.spool import Spool
from services.core.store import accounts, blobs, secrets, spool
from services.core.store.dkim import ACTIVE, Key
from services.core.store.engine import Store
from services.core.telemetry import Metrics, logger
from services.mxrouter.keyring import Keyring
from services.mxrouter.outgoing import OUR_DOOR, Finisher, Parcel, author_domain
from tests.unit.core.test_directory import Hints, Statements
from tests.unit.mxrouter.letters import BAD, PLAIN
from tests.unit.mxrouter.test_seal import results

HOST = "mx.posta.test"
ALICE = AccountId(1)
OWN = Parcel("alice@posta.test", ALICE, "submission", None)
NOTICE = Parcel("", None, OUR_DOOR, None)
FORWARD = Parcel("bob@example.org", None, "mxrouter", "posta.test")
FOREIGN = PLAIN.replace(b"alice@posta.test", b"bob@example.org")


class House:
    """The way out, its clock in our hands."""

    def __init__(self, store: Store, hints: Hints, srs_secret: str = "", key_secret: str = "") -> None:
        secret = SecretStr(srs_secret) if srs_secret else None
        self.store, self.hints, self.now = store, hints, datetime.now(UTC)
        self.directory = Directory(store, hints, secret, lambda: self.now.timestamp())
        self.keyring = Keyring(store, hints, SecretStr(key_secret) if key_secret else None, secret)
        self.finisher = Finisher(self.keyring, self.directory, HOST, lambda: self.now)
        self.rotation = Rotation(store, Dns, SecretStr(key_secret) if key_secret else None)

    async def start(self) -> None:
        await self.directory.start()
        await self.keyring.start()

    async def sign_for(self, domain: str) -> list[Key]:
        """Keys for the domain, in use."""
        await self.rotation.rotate(domain)
        made = await self.rotation.activate(domain, force=True)
        await announce(self.hints, domain=domain)
        return made

    async def verdicts(self, octets: bytes) -> list[tuple[str, bool]]:
        """dkimpy's word on every DKIM signature: by which domain, and whether it is good."""
        found = re.findall(rb"(?m)^DKIM-Signature:.*?[; ]d=([^;]+);", octets, re.S)
        return [(d.decode(), dkim.DKIM(octets).verify(idx=n, dnsfunc=await self.dns())) for n, d in enumerate(found)]

    async def dns(self) -> object:
        async with self.store.query("test") as conn:
            rows = (await conn.execute(text("SELECT domain, selector, algorithm, public_key FROM dkim_keys"))).all()
        records = {f"{zone.name(d, s)}.".encode(): zone.value(a, p).encode() for d, s, a, p in rows}
        return lambda name, timeout=5: records.get(name, b"")


@pytest.fixture
def hints() -> Hints:
    return Hints()


@pytest.fixture
async def house(store: Store, hints: Hints) -> House:
    async with store.begin("test") as conn:
        for domain in ("posta.test", "other.test"):
            await accounts.create_domain(conn, domain)
        await accounts.create(conn, "alice@posta.test")
        await accounts.add_alias(conn, "moved@posta.test", ["Carol@remote.test"])
        await accounts.add_alias(conn, "both@other.test", ["moved@posta.test", "alice@posta.test"])
        await accounts.add_alias(conn, "@other.test", ["alice@posta.test"])
    made = House(store, hints)
    await made.start()
    return made


async def test_mail_of_a_login_is_signed_by_the_domain_of_its_author(house: House) -> None:
    await house.sign_for("posta.test")
    sender, octets = await house.finisher.finish(OWN, PLAIN)
    assert sender == "alice@posta.test"
    assert octets.endswith(PLAIN)
    assert await house.verdicts(octets) == [("posta.test", True), ("posta.test", True)]


async def test_mail_from_outside_is_never_signed_as_ours(house: House) -> None:
    await house.sign_for("posta.test")
    for parcel in (FORWARD, Parcel("alice@posta.test", None, "mxrouter", "posta.test")):
        _, octets = await house.finisher.finish(parcel, PLAIN)
        assert b"DKIM-Signature" not in octets


@pytest.mark.parametrize(
    "author",
    [b"alice@other.test", b"alice@elsewhere.test", b"a@posta.test, b@other.test", b"nobody", b"alice@sub.posta.test"],
)
async def test_an_author_elsewhere_or_without_keys_is_not_signed_for(house: House, author: bytes) -> None:
    await house.sign_for("posta.test")
    octets = PLAIN.replace(b"Alice <alice@posta.test>", author)
    assert await house.finisher.finish(OWN, octets) == ("alice@posta.test", octets)


async def test_our_notices_are_signed_by_the_host_or_the_domain_above_it(house: House) -> None:
    await house.sign_for("posta.test")
    notice = PLAIN.replace(b"alice@posta.test", b"postmaster@mx.posta.test")
    _, octets = await house.finisher.finish(NOTICE, notice)
    assert await house.verdicts(octets) == [("posta.test", True), ("posta.test", True)]
    async with house.store.begin("test") as conn:
        await accounts.create_domain(conn, HOST)
    await house.sign_for(HOST)
    _, octets = await house.finisher.finish(NOTICE, notice)
    assert await house.verdicts(octets) == [(HOST, True), (HOST, True)]


async def test_keys_are_remembered_until_provisioning_says_otherwise(house: House, store: Store) -> None:
    from sqlalchemy import event

    seen = Statements()
    assert b"DKIM" not in (await house.finisher.finish(OWN, PLAIN)).octets
    old = await house.sign_for("posta.test")
    event.listen(store._engine.sync_engine, "before_cursor_execute", seen.take)
    for _ in range(3):
        assert b"DKIM" in (await house.finisher.finish(OWN, PLAIN)).octets
    assert len(seen) == 1
    new = [key.selector for key in await house.sign_for("posta.test") if key.state == ACTIVE]
    _, octets = await house.finisher.finish(OWN, PLAIN)
    assert all(f"s={selector};".encode() in octets for selector in new)
    assert not any(f"s={key.selector};".encode() in octets for key in old)


async def test_a_key_that_cannot_be_read_holds_the_mail_back(house: House, store: Store, hints: Hints) -> None:
    sealed = House(store, hints, key_secret="right")
    await sealed.sign_for("posta.test")
    assert b"DKIM" in (await sealed.finisher.finish(OWN, PLAIN)).octets
    with pytest.raises(KeyUnusable, match=r"dkim\.key_secret"):
        await house.finisher.finish(OWN, PLAIN)


@pytest.mark.parametrize("octets", BAD.values(), ids=BAD.keys())
async def test_no_octets_are_too_bad_to_leave(house: House, octets: bytes) -> None:
    await house.sign_for("posta.test")
    for parcel in (OWN, NOTICE, FORWARD):
        assert (await house.finisher.finish(parcel, octets)).octets.endswith(octets)


async def test_a_forward_is_sealed_by_the_domain_that_forwards(house: House) -> None:
    await house.sign_for("posta.test")
    taken = results(HOST, "none") + FOREIGN
    _, octets = await house.finisher.finish(FORWARD, taken)
    assert octets.endswith(taken)
    assert octets.startswith(b"ARC-Seal: i=1; cv=none; a=rsa-sha256; d=posta.test;")
    assert dkim.ARC(octets).verify(dnsfunc=await house.dns())[0] == dkim.CV_Pass


async def test_a_forward_by_a_domain_without_keys_goes_unsealed(house: House) -> None:
    taken = results(HOST, "none") + FOREIGN
    sender, octets = await house.finisher.finish(FORWARD, taken)
    assert octets == taken
    assert sender.endswith("=example.org=bob@posta.test")


@pytest.mark.parametrize(
    "parcel",
    [
        Parcel("", None, "mxrouter", "posta.test"),  # a bounce stays one
        Parcel("alice@other.test", None, "submission", "posta.test"),  # SPF of a domain of ours names us
        Parcel("bob@example.org", None, "mxrouter", None),
        Parcel("a" * 200 + "@" + "b." * 60 + "test", None, "mxrouter", "posta.test"),
    ],
)
async def test_senders_that_stay(house: House, parcel: Parcel) -> None:
    assert (await house.finisher.finish(parcel, FOREIGN)).sender == parcel.sender


# ---- there and back --------------------------------------------------------------------------------------------


@pytest.fixture
async def intake(house: House, store: Store) -> AsyncIterator[Intake]:
    """The door's half; nothing of it needs NATS."""
    bus = await Bus.connect("nats://127.0.0.1:1", "test")
    yield Intake(
        Spool(store, bus, logger("test")),
        bus,
        house.directory,
        logger("test"),
        Metrics("test"),
        door="mxrouter",
        host=HOST,
        deadline_s=5,
    )
    await bus.close()


async def taken(intake: Intake, store: Store, sender: str, *recipients: str) -> list[tuple[str, str | None]]:
    """What the spool keeps of such an envelope: where each recipient led, and which domain of ours forwards there."""
    mailbox = parse(sender, longest_local=250) if sender else None
    talk = session.Session(session.Ends("192.0.2.1", 1), session.Ends("192.0.2.2", 25), "client.test")
    talk.transaction = session.Transaction(session.Sender(mailbox))
    for each in recipients:
        await intake.recipient(talk, session.Recipient(parse(each, longest_local=250)), replies.RELAY_DENIED)
    entry = intake._entry(talk, talk.transaction, FOREIGN, None, lambda _id, _now: b"")
    await blobs.stage(store, [FOREIGN])
    await spool.insert(store, [entry._replace(spool_id=new_spool_id())], 20)
    async with store.begin("test") as conn:
        rows = await conn.execute(text("SELECT address, forwarded_by FROM spool_recipients ORDER BY n"))
        found = [(row[0], row[1]) for row in rows]
        await conn.execute(text("DELETE FROM spool_recipients"))
    return found


async def test_the_spool_knows_who_forwards(house: House, intake: Intake) -> None:
    assert await taken(intake, house.store, "bob@example.org", "both@other.test") == [
        ("alice@posta.test", None),
        ("Carol@remote.test", "other.test"),
    ]
    with pytest.raises(Refused):
        await taken(intake, house.store, "bob@example.org", "carol@remote.test")


async def test_a_bounce_comes_back_to_whoever_wrote(house: House, intake: Intake) -> None:
    [(_, forwarded_by)] = await taken(intake, house.store, "Bob.Camel@example.org", "moved@posta.test")
    sender, _ = await house.finisher.finish(Parcel("Bob.Camel@example.org", None, "mxrouter", forwarded_by), FOREIGN)
    # Hours later, from the other side of the forward:
    house.now += timedelta(days=2)
    assert await taken(intake, house.store, "", sender) == [("Bob.Camel@example.org", "posta.test")]
    assert (await house.finisher.finish(Parcel("", None, "mxrouter", "posta.test"), FOREIGN)).sender == ""
    # With one letter changed, and long after, it is an address that nobody has.
    changed = parse(sender, longest_local=250)
    with pytest.raises(Refused):
        await taken(intake, house.store, "", f"{changed.local[:-1]}x@posta.test")
    house.now += timedelta(days=30)
    await announce(house.hints)
    assert await house.directory.resolve(parse(sender, longest_local=250)) == Unknown()


async def test_a_catch_all_does_not_take_what_only_looks_like_ours(house: House) -> None:
    assert await house.directory.resolve(parse("SRS0=aaaaaaaa=aa=example.org=bob@other.test")) == Unknown()
    remote = parse("SRS0=aaaaaaaa=aa=example.org=bob@elsewhere.test")
    assert await house.directory.resolve(remote) == Remote(remote)


async def test_the_secret_is_made_once_for_all_processes(house: House, store: Store, hints: Hints) -> None:
    other = House(store, hints)
    one, two = [await each.finisher.finish(FORWARD, FOREIGN) for each in (house, other)]
    assert one.sender == two.sender
    async with store.query("test") as conn:
        assert await secrets.get(conn, secrets.SRS)


async def test_a_secret_that_is_set_is_the_one_that_counts(house: House, store: Store, hints: Hints) -> None:
    await house.finisher.finish(FORWARD, FOREIGN)  # the store has one of its own now
    given = House(store, hints, srs_secret="of the operator")
    sender, _ = await given.finisher.finish(FORWARD, FOREIGN)
    address = parse(sender, longest_local=250)
    assert await given.directory.resolve(address) == Expanded((Remote(parse("bob@example.org")),))
    assert await house.directory.resolve(address) == Unknown()


@pytest.mark.parametrize(
    ("field", "domain"),
    [
        (b"From: Alice <alice@Posta.TEST>\r\n", "posta.test"),
        (b"From: a@posta.test, b@posta.test\r\n", "posta.test"),
        (b"From: alice@xn--mnchen-3ya.test\r\n", "xn--mnchen-3ya.test"),
        ("From: a@münchen.test\r\n".encode(), "xn--mnchen-3ya.test"),
        (b"From: a@posta.test, b@other.test\r\n", ""),
        (b"From: a@posta.test\r\nFrom: a@posta.test\r\n", ""),
        (b"From: undisclosed:;\r\n", ""),
        (b"From: a@b@c\r\n", "c"),
        (b"From: a@\xff\r\n", ""),
        (b"Sender: a@posta.test\r\n", ""),
    ],
)
def test_whose_mail_it_is(field: bytes, domain: str) -> None:
    assert author_domain(field + b"\r\nFrom: body@posta.test\r\n") == domain
