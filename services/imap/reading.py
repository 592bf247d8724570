"""FETCH at work: pages of messages from the store, the next one asked for while the client takes this one.

Nothing here is held while the client reads: a page is whole before its first octet is yielded, and the connection it
came over is back in the pool.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple, TypeVar

from services.core.ids import AccountId, Fid
from services.core.store.engine import Store
from services.imap import items, queries
from services.imap.items import Column, Context, Item, Octets, Structure
from services.imap.view import Spans, View

FLAG_ROWS, OBJECT_ROWS, OCTET_ROWS = 5000, 2500, 2500
PAGE_OCTETS = 4 << 20  # of messages read at once
STREAMED = 8 << 20  # a slice from this size on goes to the client in pieces
PIECE = 1 << 20

T = TypeVar("T")


class Source(NamedTuple):
    """The folder read from, as its client sees it."""

    store: Store
    account_id: AccountId
    fid: Fid
    view: View


class Page(NamedTuple):
    """Rows of one page: their sequence numbers, and the values by column."""

    seqs: Sequence[int]
    columns: dict[str, Sequence[Any]]


async def fetch(
    source: Source, spans: Spans, wanted: Sequence[Item], *, since: int = 0, uidonly: bool = False
) -> AsyncGenerator[bytes, None]:
    """FETCH responses for the messages at those positions, in chunks worth a write each.

    `since`: only messages whose modseq is above it. A message that another session expunged is passed over.
    """
    names = items.columns_of(wanted)
    plain = items.only_columns(wanted)
    size = FLAG_ROWS if plain and not queries.touches_objects(names) else OBJECT_ROWS if plain else OCTET_ROWS
    loads = (_page(source, part, names, since) for part in _parts(spans, size))
    async with aclosing(_ahead(loads)) as pages:
        async for page in pages:
            if not page.seqs:
                continue
            context = Context(source.view.first_recent, source.view.keywords)
            numbers = page.columns["uid"] if uidonly else page.seqs
            verb = b"UIDFETCH" if uidonly else b"FETCH"
            if plain:
                lines = items.lines(wanted, context, numbers, await _with_heads(source, page), verb)
                yield context.keywords.news() + lines
                continue
            async with aclosing(_octets(source.store, wanted, context, numbers, page, verb)) as chunks:
                async for chunk in chunks:
                    yield chunk


async def _ahead(loads: Iterator[Coroutine[Any, Any, T]]) -> AsyncGenerator[T, None]:
    """What the loads return, in order, one load being under way while the one before it is used."""
    coming: asyncio.Task[T] | None = None
    try:
        for load in loads:
            current, coming = coming, asyncio.create_task(load)
            if current is not None:
                yield await current
        if coming is not None:
            last, coming = coming, None
            yield await last
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.wait((coming,))


def _parts(spans: Spans, size: int) -> Iterator[Spans]:
    """The positions in groups of at most `size`, in order."""
    group: Spans = []
    room = size
    for first, end in spans:
        while first < end:
            taken = min(end, first + room)
            group.append((first, taken))
            room -= taken - first
            first = taken
            if not room:
                yield group
                group, room = [], size
    if group:
        yield group


async def _page(source: Source, spans: Spans, names: tuple[str, ...], since: int) -> Page:
    store, account_id, fid, view = source
    known = view.known
    first, end = spans[0][0], spans[-1][1]
    low, high = known[first], known[end - 1]
    count = sum(b - a for a, b in spans)
    # One range of the key is read faster than a list of keys, unless most of what lies in it is not wanted.
    within = count * 2 > high - low
    which = queries.Which(low, high, None if within else view.pick(spans), since)
    rows = await queries.rows(store, account_id, fid, which, names)
    if len(rows) == count and (len(spans) == 1 or not within):
        seqs: Sequence[int] = [n for a, b in spans for n in range(a + 1, b + 1)]
    else:
        place = {uid: n for a, b in spans for uid, n in zip(known[a:b], range(a + 1, b + 1), strict=True)}
        rows = [row for row in rows if row[0] in place]
        seqs = [place[row[0]] for row in rows]
    return Page(seqs, dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else {})


async def _with_heads(source: Source, page: Page) -> dict[str, Sequence[Any]]:
    """The columns, header lines that delivery found too large to set aside read from the messages."""
    heads = page.columns.get("head")
    if heads is None or None not in heads:
        return page.columns
    uids = page.columns["uid"]
    missing = [uid for uid, head in zip(uids, heads, strict=True) if head is None]
    names = ("uid", "blob_id", "prefix", "header_length")
    which = queries.Which(missing[0], missing[-1], missing)
    rows = await queries.rows(source.store, source.account_id, source.fid, which, names)
    found = await queries.slices(source.store, [(blob, 0, max(end - len(pre), 0)) for _, blob, pre, end in rows])
    read = {row[0]: (row[2] + rest)[: row[3]] for row, rest in zip(rows, found, strict=True)}
    filled = [read.get(uid, b"") if head is None else head for uid, head in zip(uids, heads, strict=True)]
    return {**page.columns, "head": filled}


# ---- octets ----------------------------------------------------------------------------------------------------


class Ask(NamedTuple):
    """One item of one message: its octets are the last `keep` of the prefix slice and then a slice of the blob."""

    item: Octets | Structure
    before: bytes  # what the prefix gives
    blob: tuple[bytes, int, int] | None  # blob, start, length; None: nothing of the blob
    missing: bool  # the message has no such part

    @property
    def size(self) -> int:
        return len(self.before) + (self.blob[2] if self.blob else 0)

    @property
    def streamed(self) -> bool:
        """Whether the octets go out as they are and are too many to hold."""
        return self.size > STREAMED and isinstance(self.item, Octets) and items.sent_as_is(self.item)


def _ask(item: Octets | Structure, row: dict[str, Any]) -> Ask:
    where = items.where(item, row)
    if where is None:
        return Ask(item, b"", None, True)
    prefix: bytes = row["prefix"]
    skipped = len(prefix)
    start, end = max(where.start - skipped, 0), max(where.end - skipped, 0)
    blob = (row["blob_id"], start, end - start) if end > start else None
    return Ask(item, prefix[where.start : where.end], blob, False)


class Message(NamedTuple):
    """One message of a page that is opened: the line up to its octets, and what is asked of them."""

    line: bytes
    asks: list[Ask]

    @property
    def size(self) -> int:
        return sum(ask.size for ask in self.asks)


async def _octets(
    store: Store, wanted: Sequence[Item], context: Context, numbers: Sequence[int], page: Page, verb: bytes
) -> AsyncGenerator[bytes, None]:
    columns = [item for item in wanted if isinstance(item, Column)]
    opened = [item for item in wanted if not isinstance(item, Column)]
    starts = items.starts(columns, context, numbers, page.columns, verb)
    if news := context.keywords.news():
        yield news
    used = {name for item in opened for name in items.opened_columns(item)}
    names = tuple(used)
    rows = zip(*[page.columns[name] for name in names], strict=True)
    messages = (
        Message(line, [_ask(item, dict(zip(names, row, strict=True))) for item in opened])
        for line, row in zip(starts, rows, strict=True)
    )
    async with aclosing(_ahead(_read(store, group) for group in _groups(messages))) as groups:
        async for group, contents in groups:
            if any(ask.streamed for ask in group[0].asks):
                async with aclosing(_stream(store, group[0])) as pieces:
                    async for piece in pieces:
                        yield piece
            else:
                yield _rendered(group, contents)


def _groups(messages: Iterator[Message]) -> Iterator[list[Message]]:
    """Messages in groups to be read at once; one that is streamed stands alone."""
    group: list[Message] = []
    octets = 0
    for message in messages:
        alone = any(ask.streamed for ask in message.asks)
        if group and (alone or octets + message.size > PAGE_OCTETS):
            yield group
            group, octets = [], 0
        group.append(message)
        octets += message.size
        if alone:
            yield group
            group, octets = [], 0
    if group:
        yield group


async def _read(store: Store, group: list[Message]) -> tuple[list[Message], list[bytes]]:
    asked = [ask.blob for message in group for ask in message.asks if ask.blob is not None and not ask.streamed]
    return group, await queries.slices(store, asked)


def _rendered(group: list[Message], contents: list[bytes]) -> bytes:
    content = iter(contents)
    out: list[bytes] = []
    for message in group:
        out.append(message.line)
        for ask in message.asks:
            octets = next(content) if ask.blob else b""
            out += items.render(ask.item, ask.before, None if ask.missing else octets)
            out.append(b" ")
        out[-1] = b")\r\n"
    return b"".join(out)


async def _stream(store: Store, message: Message) -> AsyncGenerator[bytes, None]:
    yield message.line
    for n, ask in enumerate(message.asks, start=1):
        end = b" " if n < len(message.asks) else b")\r\n"
        if not ask.streamed or ask.blob is None or not isinstance(ask.item, Octets):
            content = await queries.slices(store, [ask.blob]) if ask.blob else [b""]
            yield b"".join((*items.render(ask.item, ask.before, None if ask.missing else content[0]), end))
            continue
        yield b"%b {%d}\r\n%b" % (ask.item.label, ask.size, ask.before)
        blob_id, start, length = ask.blob
        pieces = (
            queries.slices(store, [(blob_id, at, min(PIECE, start + length - at))])
            for at in range(start, start + length, PIECE)
        )
        async with aclosing(_ahead(pieces)) as read:
            async for piece in read:
                yield piece[0]
        yield end
