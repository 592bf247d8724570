"""Messages put into folders, flagged, copied, moved and expunged: the only writers of `items` and `objects`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.core.ids import AccountId, BlobId, Cn, Fid, Mid, SpoolId, Uid
from services.core.store import numbers
from services.core.store.engine import Store
from services.core.store.flags import Flag


class Content(NamedTuple):
    """What `objects` keeps of one message besides its numbers; made by `content.prepare`."""

    blob_id: BlobId
    prefix: bytes
    size: int
    header_length: int
    envelope: bytes
    bodystructure: bytes
    parts: bytes
    head: bytes | None
    subject: str
    base_subject: str
    from_text: str
    to_text: str
    cc_text: str
    bcc_text: str
    preview: str
    sent_at: datetime | None
    message_id: str | None
    refs: str  # ids without angle brackets, one a line
    has_attachment: bool
    search_text: str
    thread_key: int  # what a thread is called that begins here


class Placement(NamedTuple):
    """One message to be put into one folder."""

    content: Content
    folder: Fid | str  # a folder, or a role: a role that the account's folders lack means INBOX
    internal_date: datetime
    flags: Flag = Flag(0)
    is_read: bool = False
    keywords: tuple[str, ...] = ()
    account_id: AccountId = AccountId(0)  # what `append` puts here itself
    spool_id: SpoolId = SpoolId("")
    n: int = 0  # the recipient's place in the spool entry


class Placed(NamedTuple):
    """Where the `ord`-th (from 1) placement went."""

    ord: int
    fid: Fid
    uid: Uid
    mid: Mid
    cn: Cn
    uidvalidity: int


class Stored(NamedTuple):
    """What a flag change did: the messages it changed, and those it left alone as changed since."""

    changed: list[Uid]
    modified: list[Uid]
    cn: Cn  # the last number taken; 0 when nothing changed


# ---- putting in ------------------------------------------------------------------------------------------------
# One statement is one transaction for all accounts of a batch: delivery's cost is round trips, commits and plans, not
# rows. Driver calls for the same reason (measured: half the time of one transaction an account by way of Core).
# Accounts are locked in the order of their ids, so two batches never wait for each other.
# LEFT JOINs are deliberate: a folder or account that vanished yields NULL where NULL is not allowed, and nothing at
# all is kept, the delivery rows included.

_COLUMN_TYPES = {
    "account_id": "bigint", "fid": "bigint", "role": "text", "internal_date": "timestamptz", "flags": "smallint",
    "is_read": "boolean", "keywords": "text", "spool_id": "text", "n": "integer", "blob_id": "bytea",
    "prefix": "bytea", "size": "bigint", "header_length": "integer", "envelope": "bytea", "bodystructure": "bytea",
    "parts": "bytea", "head": "bytea", "subject": "text", "base_subject": "text", "from_text": "text",
    "to_text": "text", "cc_text": "text", "bcc_text": "text", "preview": "text", "sent_at": "timestamptz",
    "message_id": "text", "refs": "text", "has_attachment": "boolean", "search_text": "text", "thread_key": "bigint",
}  # fmt: skip

_PLACE = """
WITH m AS (
  SELECT u.*, coalesce(u.fid, (SELECT f.fid FROM folders f WHERE f.account_id = u.account_id AND f.role = u.role),
    (SELECT f.fid FROM folders f WHERE f.account_id = u.account_id AND f.role = 'inbox')) AS into_fid
  FROM unnest({arrays}) WITH ORDINALITY AS u({columns}, ord)
), new AS ({guard}), kept AS (
  SELECT m.*, row_number() OVER (PARTITION BY account_id ORDER BY ord) AS k,
    row_number() OVER (PARTITION BY account_id, into_fid ORDER BY ord) AS f
  FROM m JOIN new USING (account_id, spool_id, n)
), sums AS (
  SELECT account_id, count(*) AS n, sum(size) AS octets FROM kept GROUP BY account_id
), locked AS (
  SELECT s.account_id FROM account_seq s JOIN sums USING (account_id) ORDER BY s.account_id FOR UPDATE OF s
), seq AS (
  UPDATE account_seq a SET last_cn = last_cn + sums.n, last_objid = last_objid + 2 * sums.n,
    cn_email = last_cn + sums.n, cn_thread = last_cn + sums.n, cn_mailbox = last_cn + sums.n,
    used_octets = used_octets + sums.octets, used_items = used_items + sums.n
  FROM sums JOIN locked USING (account_id) WHERE a.account_id = sums.account_id
  RETURNING a.account_id, last_cn - sums.n AS cn, last_objid - 2 * sums.n AS objid
), fold AS (
  UPDATE folders f SET uidnext = f.uidnext + g.n, content_cn = seq.cn + g.last, total = total + g.n,
    unseen = f.unseen + g.unseen, octets = f.octets + g.octets, content_at = now()
  FROM (SELECT account_id, into_fid, count(*) AS n, max(k) AS last, sum(size) AS octets,
          count(*) FILTER (WHERE NOT is_read) AS unseen FROM kept GROUP BY account_id, into_fid) g
    JOIN seq USING (account_id)
  WHERE f.account_id = g.account_id AND f.fid = g.into_fid
  RETURNING f.account_id, f.fid AS into_fid, f.uidnext - g.n - 1 AS uid, f.uidvalidity
), obj AS (
  INSERT INTO objects (account_id, object_id, created_cn, thread_id, blob_id, prefix, size, header_length, envelope,
    bodystructure, parts, head, subject, base_subject, from_text, to_text, cc_text, bcc_text, preview, sent_at,
    message_id, refs, has_attachment, search_text)
  SELECT account_id, seq.objid + 2 * k - 1, seq.cn + k,
    coalesce((SELECT o.thread_id FROM objects o WHERE o.account_id = kept.account_id AND kept.refs <> ''
              AND o.message_id = ANY(string_to_array(kept.refs, E'\\n'))
              ORDER BY o.object_id DESC LIMIT 1), thread_key),
    blob_id, prefix, size, header_length, envelope, bodystructure, parts, head, subject, base_subject, from_text,
    to_text, cc_text, bcc_text, preview, sent_at, message_id, string_to_array(kept.refs, E'\\n'), has_attachment,
    search_text
  FROM kept LEFT JOIN seq USING (account_id)
), it AS (
  INSERT INTO items (account_id, fid, uid, mid, object_id, created_cn, cn, modseq, size, internal_date, kind, flags,
    is_read, keywords)
  SELECT account_id, into_fid, fold.uid + f, seq.objid + 2 * k, seq.objid + 2 * k - 1, seq.cn + k, seq.cn + k,
    seq.cn + k, size, internal_date, 1, flags, is_read, string_to_array(keywords, ' ')
  FROM kept LEFT JOIN seq USING (account_id) LEFT JOIN fold USING (account_id, into_fid)
)
SELECT ord, into_fid, fold.uid + f, seq.objid + 2 * k, seq.cn + k, uidvalidity
FROM kept JOIN seq USING (account_id) JOIN fold USING (account_id, into_fid) ORDER BY ord
"""

_ARRAYS = {
    "arrays": ", ".join(f"${k}::{kind}[]" for k, kind in enumerate(_COLUMN_TYPES.values(), start=1)),
    "columns": ", ".join(_COLUMN_TYPES),
}
_APPEND = _PLACE.format(guard="SELECT account_id, spool_id, n FROM m", **_ARRAYS)
# A delivery that was made already has its row here: the redelivered ticket then places nothing.
_DELIVER = _PLACE.format(
    guard="INSERT INTO deliveries (account_id, spool_id, n) SELECT account_id, spool_id, n FROM m "
    "ORDER BY account_id, spool_id, n ON CONFLICT DO NOTHING RETURNING account_id, spool_id, n",
    **_ARRAYS,
)


async def append(store: Store, account_id: AccountId, placements: Sequence[Placement]) -> list[Placed]:
    """Put the messages into the account in order, all or none, in one transaction.

    Raises `numbers.NoSuchAccount` when account or folder is gone, `StoreUnavailable`.
    """
    numbered = [p._replace(account_id=account_id, n=n) for n, p in enumerate(placements)]
    return await _place(store, "messages.append", _APPEND, numbered)


async def deliver(store: Store, placements: Sequence[Placement]) -> list[Placed]:
    """Put each message into its placement's account, all or none, and each (account, spool_id, n) exactly once.

    What was delivered before is left out of the answer. Raises as `append` does.
    """
    return await _place(store, "messages.deliver", _DELIVER, placements)


async def _place(store: Store, name: str, statement: str, placements: Sequence[Placement]) -> list[Placed]:
    rows: list[tuple[Any, ...]] = [
        (
            p.account_id,
            None if isinstance(p.folder, str) else p.folder,
            p.folder if isinstance(p.folder, str) else None,
            p.internal_date,
            int(p.flags),
            p.is_read,
            " ".join(p.keywords),
            p.spool_id,
            p.n,
            *p.content,
        )
        for p in placements
    ]
    async with store.driver(name) as conn:
        try:
            placed = await conn.fetch(statement, *map(list, zip(*rows, strict=True)))
        except asyncpg.NotNullViolationError as error:
            raise numbers.NoSuchAccount from error
    return [Placed(*row) for row in placed]


# ---- flags -----------------------------------------------------------------------------------------------------

# \Seen moves read_cn and modseq, every other flag cn and modseq (a read mark must not make Exchange clients fetch the
# message again). What would not change takes no number.
# Rows are found once and then met again by ctid, which the account's lock keeps still: joined by uid, a planner that
# takes the folder for small compares every row with every other.
# Driver calls: marking a message read is most of what clients write, and through Core it took twice the time.
_STORE = """
WITH want AS (
  SELECT ctid AS place, uid, is_read AS was_read, modseq <= $4::bigint AS fresh,
    coalesce($5::boolean, is_read) AS is_read,
    CAST((flags & ~$6::integer) | $7::integer AS smallint) AS flags,
    CASE WHEN $8::boolean THEN $9::text[]
         WHEN cardinality($9::text[]) + cardinality($10::text[]) = 0 THEN keywords
         ELSE ARRAY(SELECT k FROM unnest(keywords) k WHERE k <> ALL($10::text[])
                    UNION SELECT unnest($9::text[]) ORDER BY 1) END AS keywords,
    flags AS old_flags, keywords AS old_keywords
  FROM items WHERE account_id = $1 AND fid = $2 AND uid = ANY($3::bigint[])
), todo AS (
  SELECT want.*, row_number() OVER (ORDER BY uid) AS k,
    flags <> old_flags OR NOT (keywords @> old_keywords AND keywords <@ old_keywords) AS changed,
    is_read <> was_read AS read_changed
  FROM want WHERE fresh AND (is_read <> was_read OR flags <> old_flags
    OR NOT (keywords @> old_keywords AND keywords <@ old_keywords))
), sums AS (
  SELECT count(*) AS n, count(*) FILTER (WHERE was_read AND NOT is_read)
    - count(*) FILTER (WHERE is_read AND NOT was_read) AS unseen FROM todo
), seq AS (
  UPDATE account_seq SET last_cn = last_cn + sums.n, cn_email = last_cn + sums.n,
    cn_mailbox = CASE WHEN sums.unseen <> 0 THEN last_cn + sums.n ELSE cn_mailbox END
  FROM sums WHERE account_id = $1 AND sums.n > 0
  RETURNING last_cn - sums.n AS cn
), fold AS (
  UPDATE folders SET content_cn = seq.cn + sums.n, unseen = folders.unseen + sums.unseen, content_at = now()
  FROM seq, sums WHERE account_id = $1 AND fid = $2
), done AS (
  UPDATE items i SET flags = t.flags, keywords = t.keywords, is_read = t.is_read, modseq = seq.cn + t.k,
    cn = CASE WHEN t.changed THEN seq.cn + t.k ELSE i.cn END,
    read_cn = CASE WHEN t.read_changed THEN seq.cn + t.k ELSE i.read_cn END, modified_at = now()
  FROM todo t, seq WHERE i.account_id = $1 AND i.ctid = t.place
)
SELECT ARRAY(SELECT uid FROM todo ORDER BY uid), ARRAY(SELECT uid FROM want WHERE NOT fresh ORDER BY uid),
  coalesce((SELECT seq.cn + sums.n FROM seq, sums), 0)
"""


class FlagChange(NamedTuple):
    """What to do to the flags of messages: add and remove, or replace them all."""

    add: Flag = Flag(0)
    remove: Flag = Flag(0)
    seen: bool | None = None  # None: leave \Seen alone
    add_keywords: tuple[str, ...] = ()
    remove_keywords: tuple[str, ...] = ()
    replace_keywords: bool = False

    @classmethod
    def replace(cls, flags: Flag, seen: bool, keywords: tuple[str, ...]) -> FlagChange:
        """Exactly these flags and no others."""
        return cls(flags, ~flags & Flag(15), seen, keywords, replace_keywords=True)


async def store_flags(
    store: Store,
    account_id: AccountId,
    fid: Fid,
    uids: Sequence[int],
    change: FlagChange,
    *,
    unchanged_since: int = numbers.LIMIT,
) -> Stored:
    """Change flags of the messages that exist and whose modseq is not above `unchanged_since` (RFC 7162 3.1.3).

    One transaction. Raises `numbers.NoSuchAccount`, `StoreUnavailable`.
    """
    async with store.driver("messages.store_flags") as conn, conn.transaction():
        await numbers.hold(conn, account_id)
        row = await conn.fetchrow(
            _STORE,
            account_id,
            fid,
            uids,
            unchanged_since,
            change.seen,
            int(change.remove),
            int(change.add),
            change.replace_keywords,
            sorted(set(change.add_keywords)),
            change.remove_keywords,
        )
    assert row is not None
    return Stored(row[0], row[1], Cn(row[2]))


# ---- copying and moving ----------------------------------------------------------------------------------------

_COPY = text("""
WITH src AS (
  SELECT i.*, row_number() OVER (ORDER BY uid) AS k FROM items i
  WHERE account_id = :account_id AND fid = :fid AND uid = ANY(CAST(:uids AS bigint[]))
), sums AS (
  SELECT count(*) AS n, coalesce(sum(size), 0) AS octets, count(*) FILTER (WHERE NOT is_read) AS unseen FROM src
), seq AS (
  UPDATE account_seq SET last_cn = last_cn + sums.n, last_objid = last_objid + sums.n, cn_email = last_cn + sums.n,
    cn_mailbox = last_cn + sums.n, used_octets = used_octets + sums.octets, used_items = used_items + sums.n
  FROM sums WHERE account_id = :account_id AND sums.n > 0
  RETURNING last_cn - sums.n AS cn, last_objid - sums.n AS objid
), fold AS (
  UPDATE folders f SET uidnext = f.uidnext + sums.n, content_cn = seq.cn + sums.n, total = total + sums.n,
    unseen = f.unseen + sums.unseen, octets = f.octets + sums.octets, content_at = now()
  FROM seq, sums WHERE f.account_id = :account_id AND f.fid = :into
  RETURNING f.uidnext - sums.n - 1 AS uid
)
INSERT INTO items (account_id, fid, uid, mid, object_id, created_cn, cn, modseq, size, internal_date, kind, flags,
  is_read, keywords, dav_name, ical_uid)
SELECT :account_id, :into, fold.uid + k, seq.objid + k, object_id, seq.cn + k, seq.cn + k, seq.cn + k, size,
  internal_date, kind, flags, is_read, keywords, dav_name, ical_uid
FROM src LEFT JOIN seq ON true LEFT JOIN fold ON true ORDER BY k
RETURNING uid, mid, cn
""")

_SOURCE_UIDS = text("""
SELECT uid FROM items WHERE account_id = :account_id AND fid = :fid AND uid = ANY(CAST(:uids AS bigint[])) ORDER BY uid
""")


class Copied(NamedTuple):
    """One message that now also lies elsewhere."""

    source: Uid
    uid: Uid
    mid: Mid
    cn: Cn


async def copy(conn: AsyncConnection, account_id: AccountId, fid: Fid, uids: Sequence[int], into: Fid) -> list[Copied]:
    """Place those of the messages that exist in folder `into` as well, in uid order, flags and dates kept."""
    await numbers.lock(conn, account_id)
    where = {"account_id": account_id, "fid": fid, "uids": list(uids)}
    sources = (await conn.execute(_SOURCE_UIDS, where)).scalars().all()
    made = sorted((await conn.execute(_COPY, {**where, "into": into})).all())
    return [Copied(source, *row) for source, row in zip(sources, made, strict=True)]


async def move(conn: AsyncConnection, account_id: AccountId, fid: Fid, uids: Sequence[int], into: Fid) -> list[Copied]:
    """As `copy`, and the sources are expunged, their tombstones naming where each went (RFC 6851)."""
    copied = await copy(conn, account_id, fid, uids, into)
    if copied:
        # Copies have consecutive mids in the order of their sources, which is that of the tombstones.
        await _expunge(conn, account_id, fid, [c.source for c in copied], moved_to=copied[0].mid)
    return copied


# ---- expunging -------------------------------------------------------------------------------------------------

_EXPUNGE = text("""
WITH gone AS (
  DELETE FROM items WHERE account_id = :account_id AND fid = :fid AND uid = ANY(CAST(:uids AS bigint[])) RETURNING *
), k AS (
  SELECT gone.*, row_number() OVER (ORDER BY uid) AS k FROM gone
), sums AS (
  SELECT count(*) AS n, coalesce(sum(size), 0) AS octets, count(*) FILTER (WHERE NOT is_read) AS unseen FROM gone
), seq AS (
  UPDATE account_seq SET last_cn = last_cn + sums.n, cn_email = last_cn + sums.n, cn_mailbox = last_cn + sums.n,
    used_octets = used_octets - sums.octets, used_items = used_items - sums.n
  FROM sums WHERE account_id = :account_id AND sums.n > 0
  RETURNING last_cn - sums.n AS cn
), fold AS (
  UPDATE folders SET total = total - sums.n, unseen = folders.unseen - sums.unseen,
    octets = folders.octets - sums.octets, deleted_total = deleted_total + sums.n,
    content_cn = seq.cn + sums.n, content_at = now()
  FROM seq, sums WHERE account_id = :account_id AND fid = :fid
)
INSERT INTO tombstones (account_id, cn, fid, mid, uid, object_id, kind, dav_name, created_cn, moved_to_mid, last_ref)
SELECT :account_id, seq.cn + k.k, fid, mid, uid, object_id, kind, dav_name, created_cn,
  CAST(:first_mid AS bigint) + k.k - 1,
  NOT EXISTS (SELECT FROM items i WHERE i.account_id = :account_id AND i.object_id = k.object_id
              AND i.mid NOT IN (SELECT mid FROM gone))
FROM k, seq
RETURNING uid, cn
""")

_ALL_UIDS = text("SELECT uid FROM items WHERE account_id = :account_id AND fid = :fid")

_DELETED_UIDS = text("""
SELECT uid FROM items WHERE account_id = :account_id AND fid = :fid AND flags & :deleted <> 0
  AND (CAST(:uids AS bigint[]) IS NULL OR uid = ANY(CAST(:uids AS bigint[])))
""")


class Expunged(NamedTuple):
    """One message that is gone."""

    uid: Uid
    cn: Cn


async def expunge(conn: AsyncConnection, account_id: AccountId, fid: Fid, uids: Sequence[int]) -> list[Expunged]:
    """Remove those of the messages that exist, leaving tombstones; in uid order."""
    await numbers.lock(conn, account_id)
    return await _expunge(conn, account_id, fid, uids)


async def expunge_deleted(
    conn: AsyncConnection, account_id: AccountId, fid: Fid, uids: Sequence[int] | None = None
) -> list[Expunged]:
    """Remove what bears \\Deleted, of all messages or of these (RFC 3501 6.4.3, RFC 4315 2.1)."""
    await numbers.lock(conn, account_id)
    where = {"account_id": account_id, "fid": fid, "deleted": int(Flag.DELETED)}
    found = await conn.execute(_DELETED_UIDS, {**where, "uids": None if uids is None else list(uids)})
    doomed = found.scalars().all()
    return await _expunge(conn, account_id, fid, doomed) if doomed else []


async def expunge_all(conn: AsyncConnection, account_id: AccountId, fid: Fid) -> list[Expunged]:
    """Remove every message of the folder: what deleting a folder does first."""
    await numbers.lock(conn, account_id)
    uids = (await conn.execute(_ALL_UIDS, {"account_id": account_id, "fid": fid})).scalars().all()
    return await _expunge(conn, account_id, fid, uids) if uids else []


async def _expunge(
    conn: AsyncConnection, account_id: AccountId, fid: Fid, uids: Sequence[int], moved_to: Mid | None = None
) -> list[Expunged]:
    """`moved_to`: the mid of the first message's copy, those of the others follow it."""
    rows = await conn.execute(
        _EXPUNGE, {"account_id": account_id, "fid": fid, "uids": list(uids), "first_mid": moved_to}
    )
    return sorted(Expunged(*row) for row in rows)
