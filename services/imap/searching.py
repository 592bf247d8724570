"""SEARCH at work: one statement for most searches, and a look at the octets of the few messages SQL is not sure of."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator
from typing import NamedTuple

from services.core.store.engine import Store
from services.imap import keys, queries
from services.imap.keys import Candidate, Key
from services.imap.reading import Source

PAGE_OCTETS = 4 << 20


class Hits(NamedTuple):
    """The messages that match: their uids, ascending, and the highest of their modseqs (0 for none)."""

    uids: list[int]
    highest: int


async def search(source: Source, key: Key) -> Hits:
    """What matches among the uids of the view; those expunged meanwhile are left out."""
    plan = keys.plan(key, source.account_id, source.fid, source.view.uidnext)
    rows = await queries.search(source.store, plan.statement, plan.args)
    if plan.needs is None:
        return Hits(rows[0][0], rows[0][1] or 0)
    candidates = [Candidate.of(row) for row in rows]
    unsure = [candidate for candidate in candidates if not candidate.surely]
    kept = {uid async for uid in _tested(source.store, key, plan.needs, unsure)}
    hits = [c for c in candidates if c.surely or c.uid in kept]
    return Hits([c.uid for c in hits], max((c.modseq for c in hits), default=0))


async def _tested(
    store: Store, key: Key, needs: keys.Needs, candidates: Iterable[Candidate]
) -> AsyncGenerator[int, None]:
    for group in _groups(candidates, needs):
        slices = [candidate.slice(needs) for candidate in group]
        contents = await queries.slices(store, slices) if needs != "subject" else [b""] * len(group)
        for candidate, content in zip(group, contents, strict=True):
            if keys.matches(key, candidate, candidate.found(content)):
                yield candidate.uid


def _groups(candidates: Iterable[Candidate], needs: keys.Needs) -> Iterator[list[Candidate]]:
    """Candidates in groups whose octets may be held at once; one larger than that stands alone."""
    group: list[Candidate] = []
    octets = 0
    for candidate in candidates:
        size = candidate.slice(needs)[2]
        if group and octets + size > PAGE_OCTETS:
            yield group
            group, octets = [], 0
        group.append(candidate)
        octets += size
    if group:
        yield group
