"""What IMAP reads: constant statements, `NamedTuple` rows. Writes are core/store's, but for the \\Recent mark.

Driver calls throughout (`Store.driver`): every command ends with a look at the folder, and a Core execution with its
transaction costs three times the one round trip that a single statement needs. One statement is one picture, so none
of these needs a transaction either.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

from services.core.ids import AccountId, Fid
from services.core.store.engine import Store
from services.imap.view import Changes, FlagRow


class FolderRow(NamedTuple):
    """A folder as LIST, STATUS and SELECT need it."""

    fid: Fid
    parent_fid: Fid
    name: str
    role: str | None
    selectable: bool
    subscribed: bool
    uidvalidity: int
    uidnext: int
    recent_uid: int
    total: int
    unseen: int
    octets: int
    content_cn: int
    deleted_total: int


_FOLDERS = """
SELECT fid, parent_fid, name, role, selectable, subscribed, uidvalidity, uidnext, recent_uid, total, unseen, octets,
  content_cn, deleted_total
FROM folders WHERE account_id = $1 AND is_ipm AND kind = 'mail' ORDER BY fid
"""

_RECENT = """
SELECT f.fid, (SELECT count(*) FROM items i WHERE i.account_id = $1 AND i.fid = f.fid AND i.uid >= f.recent_uid)
FROM unnest($2::bigint[], $3::bigint[]) AS f(fid, recent_uid)
"""

# Only a hint for people: worth no wait for the disk, and no turn at the account's lock.
_CLAIM = """
WITH lazy AS (SELECT set_config('synchronous_commit', 'off', true)),
old AS (
  SELECT fid, recent_uid FROM folders, lazy
  WHERE account_id = $1 AND fid = $2 AND recent_uid < $3 FOR UPDATE OF folders
)
UPDATE folders f SET recent_uid = $3 FROM old WHERE f.account_id = $1 AND f.fid = old.fid RETURNING old.recent_uid
"""

# A message that the view had and the store has not any more left a tombstone above the view's number.
_UIDS = """
SELECT coalesce(array_agg(uid ORDER BY uid), '{}') FROM (
  SELECT uid FROM items WHERE account_id = $1 AND fid = $2 AND uid < $4
  UNION ALL
  SELECT uid FROM tombstones WHERE account_id = $1 AND fid = $2 AND cn > $3 AND uid < $4
) known
"""

# Not by uid as well: the planner would take the uids for the shorter way and read the whole folder at every command.
CHANGES = """
SELECT 0, content_cn, uidnext, total, NULL::text[] FROM folders WHERE account_id = $1 AND fid = $2
UNION ALL
SELECT 1, uid, modseq, flags | (is_read::integer << 4), nullif(keywords, '{}') FROM items
  WHERE account_id = $1 AND fid = $2 AND modseq > $3
UNION ALL
SELECT 2, uid, 0, 0, NULL FROM tombstones WHERE account_id = $1 AND fid = $2 AND cn > $3 AND uid IS NOT NULL
"""

# RFC 7162 3.2.5.1: where it is no longer known what went, every uid that is not there is told.
_VANISHED = """
SELECT coalesce(array_agg(uid ORDER BY uid), '{}') FROM (
  SELECT uid FROM tombstones WHERE account_id = $1 AND fid = $2 AND cn > $3 AND cn <= $4 AND uid IS NOT NULL
  UNION
  SELECT n FROM folders f JOIN account_seq s USING (account_id), generate_series(1, f.uidnext - 1) AS n
  WHERE f.account_id = $1 AND f.fid = $2 AND s.forgotten_cn > $3
    AND NOT EXISTS (SELECT FROM items i WHERE i.account_id = $1 AND i.fid = $2 AND i.uid = n)
) gone
"""

_UNSEEN = """
SELECT coalesce(array_agg(uid ORDER BY uid), '{}') FROM items
WHERE account_id = $1 AND fid = $2 AND NOT is_read AND """

_FIRST_UNSEEN = "SELECT uid FROM items WHERE account_id = $1 AND fid = $2 AND NOT is_read ORDER BY uid LIMIT 1"

_LAST_CN = "SELECT account_id, last_cn FROM account_seq WHERE account_id = ANY($1::bigint[])"

_ROOM = """
SELECT s.used_octets, a.quota_octets FROM accounts a JOIN account_seq s USING (account_id) WHERE a.account_id = $1
"""

# One slice of each blob; `start` counts from 1. A subquery, because a join is sometimes planned as a scan of all blobs.
_SLICES = """
SELECT (SELECT substring(b.content FROM w.start FOR w.length) FROM blobs b WHERE b.blob_id = w.blob_id)
FROM unnest($1::bytea[], $2::integer[], $3::integer[]) WITH ORDINALITY AS w(blob_id, start, length, n) ORDER BY w.n
"""


async def folders(store: Store, account_id: AccountId) -> list[FolderRow]:
    """Every folder of the account that mail readers see, oldest first."""
    async with store.driver("imap.folders") as conn:
        return [FolderRow(*row) for row in await conn.fetch(_FOLDERS, account_id)]


async def recent(store: Store, account_id: AccountId, rows: Sequence[FolderRow]) -> dict[Fid, int]:
    """How many messages of each folder no session has been told of. No query where the counters say it."""
    known = {row.fid: row.total if row.recent_uid <= 1 else 0 for row in rows}
    ask = [row for row in rows if 1 < row.recent_uid < row.uidnext]
    if ask:
        async with store.driver("imap.recent") as conn:
            found = await conn.fetch(_RECENT, account_id, [r.fid for r in ask], [r.recent_uid for r in ask])
        known.update((Fid(fid), count) for fid, count in found)
    return known


async def claim_recent(store: Store, account_id: AccountId, fid: Fid, uidnext: int) -> int:
    """Take the \\Recent mark off everything below `uidnext`; the first uid that had it, or `uidnext`."""
    async with store.driver("imap.claim_recent") as conn:
        old = await conn.fetchval(_CLAIM, account_id, fid, uidnext)
    return uidnext if old is None else int(old)


async def uids(store: Store, account_id: AccountId, fid: Fid, cn: int, uidnext: int) -> list[int]:
    """The uids the folder had when its number was `cn` and its next uid `uidnext`, ascending."""
    async with store.driver("imap.uids") as conn:
        return list(await conn.fetchval(_UIDS, account_id, fid, cn, uidnext))


async def changes(store: Store, account_id: AccountId, fid: Fid, cn: int, uidnext: int) -> Changes | None:
    """What happened in the folder since its number was `cn` and its next uid `uidnext`; None if it is no more."""
    async with store.driver("imap.changes") as conn:
        rows = await conn.fetch(CHANGES, account_id, fid, cn)
    if len(rows) == 1 and rows[0][0] == 0:
        return Changes(rows[0][1], rows[0][2], rows[0][3], [], [], [])
    folder: tuple[int, int, int] | None = None
    flags: list[FlagRow] = []
    gone: list[int] = []
    new: list[int] = []
    for what, a, b, c, words in rows:
        match what:
            case 0:
                folder = (a, b, c)
            case 1 if a < uidnext:
                flags.append(FlagRow(a, b, c, words))
            case 1:
                new.append(a)
            case _:
                gone.append(a)
    return None if folder is None else Changes(*folder, flags, gone, sorted(new))


async def vanished(store: Store, account_id: AccountId, fid: Fid, cn: int, upto: int) -> list[int]:
    """The uids expunged after `cn`, up to `upto`, ascending."""
    async with store.driver("imap.vanished") as conn:
        return list(await conn.fetchval(_VANISHED, account_id, fid, cn, upto))


async def first_unseen(store: Store, account_id: AccountId, fid: Fid) -> int | None:
    """The lowest uid without \\Seen."""
    async with store.driver("imap.first_unseen") as conn:
        found = await conn.fetchval(_FIRST_UNSEEN, account_id, fid)
    return None if found is None else int(found)


async def last_cns(store: Store, account_ids: Sequence[AccountId]) -> dict[AccountId, int]:
    """The last number of each of these accounts."""
    async with store.driver("imap.last_cns") as conn:
        return {AccountId(a): int(cn) for a, cn in await conn.fetch(_LAST_CN, account_ids)}


async def has_room(store: Store, account_id: AccountId, octets: int) -> bool:
    """Whether that many octets more stay within the account's quota."""
    async with store.driver("imap.has_room") as conn:
        row = await conn.fetchrow(_ROOM, account_id)
    return row is not None and (row[1] is None or row[0] + octets <= row[1])


# ---- FETCH -----------------------------------------------------------------------------------------------------

# What FETCH may read of a message, by the name that items give it, and whether it lies in `objects`.
COLUMNS = {
    "uid": ("i.uid", False),
    "modseq": ("i.modseq", False),
    "bits": ("i.flags | (i.is_read::integer << 4)", False),
    # Few messages have any, and decoding an empty array costs more than decoding the rest of the row.
    "keywords": ("nullif(i.keywords, '{}')", False),
    # Whole seconds: decoding timestamps costs more than all the rest of the row.
    "internal_date": ("extract(epoch FROM i.internal_date)::bigint", False),
    "created_at": ("extract(epoch FROM i.created_at)::bigint", False),
    "size": ("i.size", False),
    "mid": ("i.mid", False),
    "object_id": ("i.object_id", False),
    "thread_id": ("o.thread_id", True),
    "envelope": ("o.envelope", True),
    "bodystructure": ("o.bodystructure", True),
    "parts": ("o.parts", True),
    "head": ("o.head", True),
    "header_length": ("o.header_length", True),
    "blob_id": ("o.blob_id", True),
    "prefix": ("o.prefix", True),
    "preview": ("o.preview", True),
}


class Which(NamedTuple):
    """Some messages of a folder: all from `low` to `high` (uids), or only `uids`; changed after `since` if not 0."""

    low: int
    high: int
    uids: list[int] | None = None
    since: int = 0

    def arguments(self) -> list[object]:
        """What follows account and folder in a statement with `_where`."""
        ends: list[object] = [self.low, self.high] if self.uids is None else [self.uids]
        return [*ends, self.since] if self.since else ends


def _where(which: Which, alias: str = "i.") -> str:
    if which.uids is None:
        return f"{alias}uid BETWEEN $3 AND $4" + (f" AND {alias}modseq > $5" if which.since else "")
    return f"{alias}uid = ANY($3::bigint[])" + (f" AND {alias}modseq > $4" if which.since else "")


@lru_cache(maxsize=512)
def _rows_statement(columns: tuple[str, ...], where: str) -> str:
    names = ", ".join(COLUMNS[name][0] for name in columns)
    join = "JOIN objects o USING (account_id, object_id) " if touches_objects(columns) else ""
    return f"SELECT {names} FROM items i {join}WHERE account_id = $1 AND i.fid = $2 AND {where} ORDER BY i.uid"  # noqa: S608 - constants


def touches_objects(columns: Sequence[str]) -> bool:
    """Whether any of these columns lies outside `items`."""
    return any(COLUMNS[name][1] for name in columns)


async def rows(
    store: Store, account_id: AccountId, fid: Fid, which: Which, columns: tuple[str, ...]
) -> Sequence[Sequence[Any]]:
    """Those `COLUMNS` of those messages that exist, in uid order."""
    statement = _rows_statement(columns, _where(which))
    async with store.driver("imap.rows") as conn:
        return cast("Sequence[Sequence[Any]]", await conn.fetch(statement, account_id, fid, *which.arguments()))


async def unseen(store: Store, account_id: AccountId, fid: Fid, which: Which) -> list[int]:
    """The uids among those messages that have no \\Seen."""
    async with store.driver("imap.unseen") as conn:
        return list(await conn.fetchval(_UNSEEN + _where(which, ""), account_id, fid, *which.arguments()))


async def slices(store: Store, wanted: Sequence[tuple[bytes, int, int]]) -> list[bytes]:
    """Of each (blob, start, length) the octets from `start` (from 0) on, in order. All blobs must exist."""
    if not wanted:
        return []
    found = await store.replica.ask(lambda copy: _slices(copy, wanted)) if store.replica is not None else None
    octets = found or [None] * len(wanted)
    if missing := [n for n, each in enumerate(octets) if each is None]:
        # A replica that is behind has not heard of the newest.
        for n, each in zip(missing, await _slices(store, [wanted[n] for n in missing]), strict=True):
            octets[n] = each
    return [_there(each) for each in octets]


async def _slices(store: Store, wanted: Sequence[tuple[bytes, int, int]]) -> list[bytes | None]:
    async with store.driver("imap.slices") as conn:
        found = await conn.fetch(_SLICES, [w[0] for w in wanted], [w[1] + 1 for w in wanted], [w[2] for w in wanted])
    return [row[0] for row in found]


def _there(octets: bytes | None) -> bytes:
    if octets is None:
        raise LookupError("a message's octets are missing")
    return octets


async def search(store: Store, statement: str, arguments: Sequence[object]) -> Sequence[Sequence[Any]]:
    """The rows of a statement that `keys` made."""
    async with store.driver("imap.search") as conn:
        return cast("Sequence[Sequence[Any]]", await conn.fetch(statement, *arguments))
