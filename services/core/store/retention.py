"""What is forgotten in the end: tombstones after ninety days, and with its last one the message they told of.

Until then a reader that was away is told exactly what went (VANISHED, JMAP destroyed, DAV 404), and a message can be
brought back. `account_seq.forgotten_cn` says up to which number an account's tombstones are no longer complete: who was
last here before it must be told what is there instead.
"""

from __future__ import annotations

from sqlalchemy import text

from services.core.store.engine import Store

KEEP_S = 90 * 86_400.0
_PORTION = 5000

# The accounts are locked in the order of their ids, as every writer of several does.
_FORGET = text("""
WITH old AS (
  SELECT account_id, cn FROM tombstones WHERE at < now() - make_interval(secs => :keep_s) LIMIT :portion
), floors AS (
  SELECT account_id, max(cn) AS cn FROM old GROUP BY account_id
), locked AS (
  SELECT s.account_id FROM account_seq s JOIN floors USING (account_id) ORDER BY s.account_id FOR UPDATE OF s
), raised AS (
  UPDATE account_seq s SET forgotten_cn = greatest(s.forgotten_cn, floors.cn)
  FROM floors JOIN locked USING (account_id) WHERE s.account_id = floors.account_id
), gone AS (
  DELETE FROM tombstones t USING old WHERE t.account_id = old.account_id AND t.cn = old.cn
  RETURNING t.account_id, t.object_id, t.last_ref
), unnamed AS (
  DELETE FROM objects o USING gone g
  WHERE g.last_ref AND o.account_id = g.account_id AND o.object_id = g.object_id
    AND NOT EXISTS (SELECT FROM items i WHERE i.account_id = o.account_id AND i.object_id = o.object_id)
)
SELECT count(*) FROM gone
""")


async def forget(store: Store, keep_s: float = KEEP_S) -> int:
    """Remove tombstones older than that, and the messages nothing else names; returns how many tombstones.

    A portion a transaction; a message's octets go later, when `blobs.sweep` finds that nobody names them.
    """
    forgotten = 0
    while True:
        async with store.begin("retention.forget") as conn:
            count: int = (await conn.execute(_FORGET, {"keep_s": keep_s, "portion": _PORTION})).scalar_one()
        forgotten += count
        if count < _PORTION:
            return forgotten
