"""Folders: born with the account, made, renamed, moved and deleted by its owner."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from services.core.ids import AccountId, Cn, Fid
from services.core.store import numbers
from services.core.store.flags import Kind

# name, role: what every account is born with (RFC 6154 roles)
DEFAULTS = (
    ("INBOX", "inbox"),
    ("Drafts", "drafts"),
    ("Sent", "sent"),
    ("Junk", "junk"),
    ("Trash", "trash"),
    ("Archive", "archive"),
)


class FolderExists(Exception):
    """There is already a folder of that name at that place."""


class NoSuchFolder(Exception):
    """No folder has this number."""


class Folder(NamedTuple):
    """One row of `folders`, as readers need it."""

    fid: Fid
    parent_fid: Fid
    name: str
    kind: str
    role: str | None
    selectable: bool
    subscribed: bool
    uidvalidity: int
    uidnext: int
    total: int
    unseen: int
    octets: int
    cn: Cn
    content_cn: Cn
    created_at: datetime


_COLUMNS = (
    "fid, parent_fid, name, kind, role, selectable, subscribed, uidvalidity, uidnext, total, unseen, octets, "
    "cn, content_cn, created_at"
)

_LIST = text(f"SELECT {_COLUMNS} FROM folders WHERE account_id = :account_id AND is_ipm ORDER BY fid")  # noqa: S608 - constant
_GET = text(f"SELECT {_COLUMNS} FROM folders WHERE account_id = :account_id AND fid = :fid")  # noqa: S608 - constant

# uidvalidity is the fid: never reused and always rising, so a folder made again under an old name has a larger one.
_INSERT = text("""
INSERT INTO folders (account_id, fid, parent_fid, name, kind, role, selectable, subscribed, uidvalidity, created_cn, cn,
  content_cn)
VALUES (:account_id, :fid, :parent_fid, :name, :kind, :role, :selectable, :subscribed, :fid, :cn, :cn, :cn)
""")

_RENAME = text("""
UPDATE folders SET parent_fid = :parent_fid, name = :name, cn = :cn, modified_at = now()
WHERE account_id = :account_id AND fid = :fid
""")

_SET = text("""
UPDATE folders SET subscribed = coalesce(:subscribed, subscribed), selectable = coalesce(:selectable, selectable),
  cn = :cn, modified_at = now()
WHERE account_id = :account_id AND fid = :fid
""")

_HAS_CHILDREN = text("SELECT EXISTS (SELECT FROM folders WHERE account_id = :account_id AND parent_fid = :fid)")

# The folder's own tombstone takes the last number of the range, after those of its items.
_DELETE = text("""
WITH gone AS (DELETE FROM folders WHERE account_id = :account_id AND fid = :fid RETURNING fid, created_cn)
INSERT INTO tombstones (account_id, cn, fid, kind, created_cn, last_ref)
SELECT :account_id, :cn, fid, :kind, created_cn, true FROM gone
""")


async def list_folders(conn: AsyncConnection, account_id: AccountId) -> list[Folder]:
    """Every folder a mail client may see, oldest first."""
    return [Folder(*row) for row in await conn.execute(_LIST, {"account_id": account_id})]


async def get(conn: AsyncConnection, account_id: AccountId, fid: Fid) -> Folder:
    """That folder; raises `NoSuchFolder`."""
    row = (await conn.execute(_GET, {"account_id": account_id, "fid": fid})).one_or_none()
    if row is None:
        raise NoSuchFolder(fid)
    return Folder(*row)


async def create_defaults(conn: AsyncConnection, account_id: AccountId) -> None:
    """Give a new account its folders; its `account_seq` row must exist."""
    first = await numbers.take(conn, account_id, cns=len(DEFAULTS), objids=len(DEFAULTS))
    await conn.execute(
        _INSERT,
        [
            _new(account_id, first.objid + k, first.cn + k, Fid(0), name, role=role, subscribed=True)
            for k, (name, role) in enumerate(DEFAULTS)
        ],
    )


async def create(
    conn: AsyncConnection,
    account_id: AccountId,
    parent_fid: Fid,
    name: str,
    *,
    kind: str = "mail",
    role: str | None = None,
    selectable: bool = True,
) -> Fid:
    """Make a folder below `parent_fid` (0: top level); raises `FolderExists`, also when the role is taken."""
    taken = await numbers.take(conn, account_id, cns=1, objids=1)
    row = _new(account_id, taken.objid, taken.cn, parent_fid, name, kind=kind, role=role, selectable=selectable)
    try:
        async with conn.begin_nested():
            await conn.execute(_INSERT, row)
    except IntegrityError as error:
        raise FolderExists(name) from error
    return Fid(taken.objid)


def _new(
    account_id: int,
    fid: int,
    cn: int,
    parent_fid: Fid,
    name: str,
    *,
    kind: str = "mail",
    role: str | None = None,
    selectable: bool = True,
    subscribed: bool = False,
) -> dict[str, object]:
    return {
        "account_id": account_id, "fid": fid, "cn": cn, "parent_fid": parent_fid, "name": name, "kind": kind,
        "role": role, "selectable": selectable, "subscribed": subscribed,
    }  # fmt: skip


async def rename(conn: AsyncConnection, account_id: AccountId, fid: Fid, parent_fid: Fid, name: str) -> None:
    """Give the folder another name or place; those below come along. Raises `FolderExists`, `NoSuchFolder`."""
    taken = await numbers.take(conn, account_id, cns=1, objids=0)
    try:
        async with conn.begin_nested():
            done = await conn.execute(
                _RENAME,
                {"account_id": account_id, "fid": fid, "parent_fid": parent_fid, "name": name, "cn": taken.cn},
            )
    except IntegrityError as error:
        raise FolderExists(name) from error
    if done.rowcount == 0:
        raise NoSuchFolder(fid)


async def set_properties(
    conn: AsyncConnection,
    account_id: AccountId,
    fid: Fid,
    *,
    subscribed: bool | None = None,
    selectable: bool | None = None,
) -> None:
    """Change what is not None; raises `NoSuchFolder`."""
    taken = await numbers.take(conn, account_id, cns=1, objids=0)
    done = await conn.execute(
        _SET,
        {"account_id": account_id, "fid": fid, "subscribed": subscribed, "selectable": selectable, "cn": taken.cn},
    )
    if done.rowcount == 0:
        raise NoSuchFolder(fid)


async def has_children(conn: AsyncConnection, account_id: AccountId, fid: Fid) -> bool:
    """Whether a folder lies below this one."""
    return bool((await conn.execute(_HAS_CHILDREN, {"account_id": account_id, "fid": fid})).scalar_one())


async def delete(conn: AsyncConnection, account_id: AccountId, fid: Fid) -> None:
    """Remove an emptied folder (see `messages.expunge`), leaving a tombstone; raises `NoSuchFolder`."""
    taken = await numbers.take(conn, account_id, cns=1, objids=0)
    done = await conn.execute(_DELETE, {"account_id": account_id, "fid": fid, "cn": taken.cn, "kind": int(Kind.FOLDER)})
    if done.rowcount == 0:
        raise NoSuchFolder(fid)
