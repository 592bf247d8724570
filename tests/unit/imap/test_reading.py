"""FETCH at work: pages, streams and sparse sets give the same octets as reading everything at once."""

from datetime import UTC, datetime

import pytest

from services.core.ids import AccountId, Fid
from services.core.mime.section import parse_section
from services.core.store import accounts, blobs, content, messages
from services.core.store.engine import Store
from services.core.store.messages import Placement
from services.imap import items, reading
from services.imap.items import Item, Octets
from services.imap.reading import Source
from services.imap.view import Spans, View

PREFIX = b"Received: by posta\r\n"
BODIES = [b"Subject: %d\r\n\r\n" % n + b"%d " % n * (40 * n) + b"\r\n" for n in range(1, 8)]


@pytest.fixture
async def source(store: Store) -> Source:
    async with store.begin("test.account") as conn:
        await accounts.create_domain(conn, "posta.test")
        account_id = await accounts.create(conn, "bob@posta.test")
    names = await blobs.stage(store, BODIES)
    when = datetime(2024, 1, 1, tzinfo=UTC)
    placed = [
        Placement(await content.prepare(name, PREFIX, body), "inbox", when)
        for name, body in zip(names, BODIES, strict=True)
    ]
    (last, *_) = reversed(await messages.append(store, account_id, placed))
    view = View(cn=last.cn, uidnext=len(BODIES) + 1, total=len(BODIES), recent=0, first_recent=99)
    return Source(store, AccountId(account_id), Fid(last.fid), view)


async def fetched(source: Source, spans: Spans, *wanted: Item) -> bytes:
    return b"".join([chunk async for chunk in reading.fetch(source, spans, wanted)])


def body(section: str = "", partial: tuple[int, int] | None = None) -> Octets:
    parsed = parse_section(section.encode())
    assert parsed is not None
    return Octets(f"BODY[{section}]".encode(), parsed, partial)


def line(n: int, octets: bytes) -> bytes:
    return b"* %d FETCH (UID %d BODY[] {%d}\r\n%b)\r\n" % (n, n, len(octets), octets)


@pytest.mark.parametrize(("rows", "page", "streamed", "piece"), [(1000, 1 << 20, 1 << 20, 99), (2, 500, 300, 70)])
async def test_pages_and_streams_lose_nothing(
    source: Source, monkeypatch: pytest.MonkeyPatch, rows: int, page: int, streamed: int, piece: int
) -> None:
    limits = {"OCTET_ROWS": rows, "OBJECT_ROWS": rows, "PAGE_OCTETS": page, "STREAMED": streamed, "PIECE": piece}
    for name, value in limits.items():
        monkeypatch.setattr(reading, name, value)
    whole = b"".join(line(n, PREFIX + octets) for n, octets in enumerate(BODIES, start=1))
    assert await fetched(source, [(0, 7)], items.UID, body()) == whole
    sparse = line(2, PREFIX + BODIES[1]) + line(7, PREFIX + BODIES[6])
    assert await fetched(source, [(1, 2), (6, 7)], items.UID, body()) == sparse
    # A part that begins in what Posta put in front and ends in the message itself.
    assert await fetched(source, [(0, 1)], body("", (15, 10))) == (
        b"* 1 FETCH (BODY[] {10}\r\n%b)\r\n" % (PREFIX + BODIES[0])[15:25]
    )
    sizes = b"".join(b"* %d FETCH (RFC822.SIZE %d)\r\n" % (n, len(PREFIX + b)) for n, b in enumerate(BODIES, start=1))
    assert await fetched(source, [(0, 7)], items.SIZE) == sizes


async def test_a_message_expunged_meanwhile_is_passed_over(source: Source) -> None:
    async with source.store.begin("test.expunge") as conn:
        await messages.expunge(conn, source.account_id, source.fid, [2])
    found = await fetched(source, [(0, 3)], items.UID)
    assert found == b"* 1 FETCH (UID 1)\r\n* 3 FETCH (UID 3)\r\n"


async def test_header_lines_that_were_too_large_to_set_aside_are_read_from_the_message(source: Source) -> None:
    huge = b"Subject: big\r\n" + b"To: " + b"a@b.c,\r\n " * 5000 + b"z@b.c\r\n\r\nx\r\n"
    (name,) = await blobs.stage(source.store, [huge])
    prepared = await content.prepare(name, PREFIX, huge)
    assert prepared.head is None
    placement = Placement(prepared, "inbox", datetime(2024, 1, 1, tzinfo=UTC))
    (placed,) = await messages.append(source.store, source.account_id, [placement])
    view = View(cn=placed.cn, uidnext=9, total=8, recent=0, first_recent=99)
    found = await fetched(source._replace(view=view), [(6, 8)], body("HEADER.FIELDS (SUBJECT)"))
    assert found == (
        b"* 7 FETCH (BODY[HEADER.FIELDS (SUBJECT)] {14}\r\nSubject: 7\r\n\r\n)\r\n"
        b"* 8 FETCH (BODY[HEADER.FIELDS (SUBJECT)] {16}\r\nSubject: big\r\n\r\n)\r\n"
    )
