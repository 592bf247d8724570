"""CREATE, DELETE, RENAME, SUBSCRIBE and UNSUBSCRIBE (RFC 9051 6.3.4 to 6.3.8)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import NamedTuple

from services.core.foldername import SEPARATOR, canonical, checked
from services.core.ids import Fid
from services.core.store import folders, messages
from services.core.store.numbers import LIMIT
from services.imap import queries
from services.imap.feature import AUTHENTICATED, Command, Feature
from services.imap.queries import FolderRow
from services.imap.session import Refused, Session
from services.imap.tree import Tree
from services.imap.wire.cursor import Cursor
from services.imap.wire.responses import Code, No, Ok, Response

ROLES = {"\\drafts": "drafts", "\\sent": "sent", "\\junk": "junk", "\\trash": "trash", "\\archive": "archive"}


class CreateArgs(NamedTuple):
    """A name, and the special use it is made for (RFC 6154 3)."""

    path: str
    uses: tuple[str, ...] = ()


class RenameArgs(NamedTuple):
    """The old name and the new one."""

    old: str
    new: str


def _must(tree: Tree, path: str) -> FolderRow:
    row = tree.find(path)
    if row is None:
        raise Refused(No("There is no such mailbox.", Code("NONEXISTENT")))
    return row


async def create(session: Session, args: CreateArgs) -> AsyncGenerator[Response, None]:
    """Make a mailbox, and those above it that are missing."""
    # RFC 9051 6.3.4: a trailing separator only says that more will be made below.
    path = checked(args.path.removesuffix(SEPARATOR))
    role = _role(args.uses)
    tree = await session.tree()
    row = tree.find(path)
    if row is not None and row.selectable:
        raise folders.FolderExists(path)
    fid = await _make(session, tree, path, role)
    session.told(Fid(0), int(fid))
    yield Ok("Created.")


def _role(uses: tuple[str, ...]) -> str | None:
    if not uses:
        return None
    role = ROLES.get(uses[0].lower())
    if role is None or len(uses) > 1:
        # RFC 6154 3: a use that cannot be given is refused, and nothing is made.
        raise Refused(No("That special use cannot be given to a mailbox.", Code("USEATTR")))
    return role


async def _make(session: Session, tree: Tree, path: str, role: str | None) -> Fid:
    """The folder at `path`; a name without a mailbox becomes one."""
    account_id = session.account_id
    levels = path.split(SEPARATOR)
    parent = Fid(0)
    async with session.store.begin("imap.create") as conn:
        for depth, name in enumerate(levels, start=1):
            row = tree.find(SEPARATOR.join(levels[:depth]))
            last = depth == len(levels)
            if row is None:
                parent = await folders.create(conn, account_id, parent, name, role=role if last else None)
            else:
                parent = row.fid
                if last:
                    await folders.set_properties(conn, account_id, parent, selectable=True)
    return parent


async def delete(session: Session, path: str) -> AsyncGenerator[Response, None]:
    """Remove a mailbox and what is in it; one with others below keeps its name (RFC 9051 6.3.5)."""
    tree = await session.tree()
    row = _must(tree, path)
    if row.role == "inbox":
        raise Refused(No("INBOX cannot be deleted.", Code("CANNOT")))
    children = tree.has_children(row.fid)
    if children and not row.selectable:
        raise Refused(No("The name has mailboxes below it.", Code("HASCHILDREN")))
    if session.opened is not None and session.opened.fid == row.fid:
        await session.leave()
    async with session.store.begin("imap.delete") as conn:
        await messages.expunge_all(conn, session.account_id, row.fid)
        if children:
            await folders.set_properties(conn, session.account_id, row.fid, selectable=False)
        else:
            await folders.delete(conn, session.account_id, row.fid)
    session.told(row.fid, row.content_cn + 1)
    yield Ok("Deleted.")


async def rename(session: Session, args: RenameArgs) -> AsyncGenerator[Response, None]:
    """Give a mailbox another name, those below it along; INBOX gives its messages instead (RFC 9051 6.3.6)."""
    old, new = canonical(args.old), checked(args.new.removesuffix(SEPARATOR))
    tree = await session.tree()
    row = _must(tree, old)
    if tree.find(new) is not None:
        raise folders.FolderExists(new)
    if new.startswith(old + SEPARATOR) and row.role != "inbox":
        raise Refused(No("A mailbox cannot be put inside itself.", Code("CANNOT")))
    if row.role == "inbox":
        fid = await _make(session, tree, new, None)
        uids = await queries.uids(session.store, session.account_id, row.fid, LIMIT, row.uidnext)
        async with session.store.begin("imap.rename_inbox") as conn:
            moved = await messages.move(conn, session.account_id, row.fid, uids, fid) if uids else []
        session.told(row.fid, moved[-1].cn + len(moved) if moved else row.content_cn)
        yield Ok("The messages of INBOX were moved.")
        return
    above, _, name = new.rpartition(SEPARATOR)
    parent = Fid(0)
    if above:
        found = tree.find(above)
        parent = found.fid if found is not None else await _make(session, tree, above, None)
    async with session.store.begin("imap.rename") as conn:
        await folders.rename(conn, session.account_id, row.fid, parent, name)
    yield Ok("Renamed.")


async def subscribe(session: Session, path: str) -> AsyncGenerator[Response, None]:
    """Mark a mailbox for LSUB and LIST (SUBSCRIBED)."""
    async for response in _subscribe(session, path, subscribed=True):
        yield response


async def unsubscribe(session: Session, path: str) -> AsyncGenerator[Response, None]:
    """Take the mark off; a name that has none, or is gone, is fine as it is."""
    async for response in _subscribe(session, path, subscribed=False):
        yield response


async def _subscribe(session: Session, path: str, *, subscribed: bool) -> AsyncGenerator[Response, None]:
    row = (await session.tree()).find(path)
    if row is None and subscribed:
        raise Refused(No("There is no such mailbox.", Code("NONEXISTENT")))
    if row is not None and row.subscribed != subscribed:
        async with session.store.begin("imap.subscribe") as conn:
            await folders.set_properties(conn, session.account_id, row.fid, subscribed=subscribed)
    yield Ok("Subscribed." if subscribed else "Unsubscribed.")


def _path(cursor: Cursor) -> str:
    cursor.space()
    path = cursor.mailbox()
    cursor.end()
    return path


def _parse_create(cursor: Cursor) -> CreateArgs:
    cursor.space()
    args = CreateArgs(cursor.mailbox())
    if not cursor.at_end():
        cursor.space()
        cursor.expect(b"(")
        cursor.keyword("USE")
        cursor.space()
        args = CreateArgs(args.path, cursor.flags())
        cursor.expect(b")")
    cursor.end()
    return args


def _parse_rename(cursor: Cursor) -> RenameArgs:
    cursor.space()
    old = cursor.mailbox()
    cursor.space()
    new = cursor.mailbox()
    cursor.end()
    return RenameArgs(old, new)


FEATURE = Feature(
    (),
    rfc=9051,
    commands=(
        Command("CREATE", AUTHENTICATED, _parse_create, create),
        Command("DELETE", AUTHENTICATED, _path, delete),
        Command("RENAME", AUTHENTICATED, _parse_rename, rename),
        Command("SUBSCRIBE", AUTHENTICATED, _path, subscribe),
        Command("UNSUBSCRIBE", AUTHENTICATED, _path, unsubscribe),
    ),
)
SPECIAL_USE = Feature(("SPECIAL-USE", "CREATE-SPECIAL-USE"), rfc=6154)
