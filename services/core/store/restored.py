"""After a restore to an earlier time: nobody is given a number that somebody else was given in the time that is lost.

Mail clients have seen UIDs, change numbers and states that the backup knows nothing of. Every account leaves a gap
above its own, wide enough for all that may have been given; whatever a client knows lies in it or below. So each client
is told once what is there, as after a very long absence, and nothing needs to be fetched anew.
"""

from __future__ import annotations

from sqlalchemy import text

from services.core.store.engine import Store

# More than a folder, or an account, is given between two backups. UIDs have 32 bits, and whoever was away is told each
# that is not there, so theirs is the smaller gap.
UIDS = 1 << 16
NUMBERS = 1 << 20

_ACCOUNTS = text("SELECT account_id FROM account_seq ORDER BY account_id")
_NUMBERS = text("""
UPDATE account_seq SET last_cn = last_cn + :gap, last_objid = last_objid + :gap, forgotten_cn = last_cn + :gap,
  cn_email = last_cn + :gap, cn_mailbox = last_cn + :gap, cn_thread = last_cn + :gap, cn_event = last_cn + :gap,
  cn_contact = last_cn + :gap, cn_other = last_cn + :gap
WHERE account_id = :account_id RETURNING last_cn
""")
_FOLDERS = text("UPDATE folders SET uidnext = uidnext + :uids, content_cn = :cn WHERE account_id = :account_id")
# Flags as they were then are news to whoever saw them change.
_ITEMS = text("UPDATE items SET modseq = :cn WHERE account_id = :account_id")
_EPOCH = text("UPDATE accounts SET change_epoch = change_epoch + 1 WHERE account_id = :account_id")


async def leave_gap(store: Store, uids: int = UIDS, numbers: int = NUMBERS) -> int:
    """Do so for every account, each in a transaction of its own; returns how many. Again does no harm."""
    async with store.query("restored.accounts") as conn:
        accounts = list((await conn.execute(_ACCOUNTS)).scalars())
    for account_id in accounts:
        async with store.begin("restored.leave_gap") as conn:
            # The account's row first: it holds off every other writer.
            cn = (await conn.execute(_NUMBERS, {"gap": numbers, "account_id": account_id})).scalar_one()
            await conn.execute(_FOLDERS, {"uids": uids, "cn": cn, "account_id": account_id})
            await conn.execute(_ITEMS, {"cn": cn, "account_id": account_id})
            await conn.execute(_EPOCH, {"account_id": account_id})
    return len(accounts)
