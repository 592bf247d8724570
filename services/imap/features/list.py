"""LIST and LSUB (RFC 9051 6.3.9, RFC 3501 6.3.9) with selection and return options (RFC 5258, 5819, 6154)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator
from typing import NamedTuple

from services.core.foldername import SEPARATOR
from services.imap.feature import AUTHENTICATED, Command, Feature
from services.imap.features.status import parse_items, statuses
from services.imap.queries import FolderRow
from services.imap.session import Session
from services.imap.tree import ROLE_ATTRIBUTES, Tree, matches
from services.imap.wire.cursor import Cursor
from services.imap.wire.responses import ListResponse, Ok, Response


class Args(NamedTuple):
    """Which mailboxes, and what to say of each."""

    reference: str
    patterns: tuple[str, ...]
    selection: frozenset[str] = frozenset()  # SUBSCRIBED REMOTE RECURSIVEMATCH SPECIAL-USE
    returned: frozenset[str] = frozenset()  # SUBSCRIBED CHILDREN SPECIAL-USE
    status: tuple[str, ...] = ()
    extended: bool = False


async def list_(session: Session, args: Args) -> AsyncGenerator[Response, None]:
    """Name the mailboxes that fit."""
    if args.patterns == ("",) and not args.extended:
        # RFC 9051 6.3.9: an empty name asks for the separator and the root.
        yield ListResponse("", ("\\Noselect",), SEPARATOR)
        yield Ok("Listed.")
        return
    tree = await session.tree()
    patterns = [args.reference + pattern for pattern in args.patterns]
    shown: list[tuple[str, FolderRow]] = []
    for path in tree.paths():
        row = tree.by_path[path]
        if not any(matches(pattern, path) for pattern in patterns):
            continue
        below = _below(tree, path, args.selection)
        if not _chosen(row, args.selection) and not below:
            continue
        yield ListResponse(path, _attributes(tree, row, args), SEPARATOR, below)
        if row.selectable:
            shown.append((path, row))
    if args.status:
        for response in await statuses(session, shown, args.status):
            yield response
    yield Ok("Listed.")


def _chosen(row: FolderRow, selection: frozenset[str]) -> bool:
    if "SUBSCRIBED" in selection and not row.subscribed:
        return False
    return "SPECIAL-USE" not in selection or row.role in ROLE_ATTRIBUTES


def _below(tree: Tree, path: str, selection: frozenset[str]) -> tuple[tuple[str, bytes], ...]:
    """CHILDINFO for a mailbox below which something is chosen (RFC 5258 3.5)."""
    if "RECURSIVEMATCH" not in selection:
        return ()
    if any(_chosen(tree.by_path[other], selection) for other in tree.below(path)):
        return (("CHILDINFO", b'("SUBSCRIBED")'),)
    return ()


def _attributes(tree: Tree, row: FolderRow, args: Args) -> tuple[str, ...]:
    attributes = [] if row.selectable else ["\\Noselect"]
    if "SUBSCRIBED" in args.selection | args.returned and row.subscribed:
        attributes.append("\\Subscribed")
    # Cheap to know, so told unasked too: RFC 3348 and RFC 6154 allow it.
    attributes.append("\\HasChildren" if tree.has_children(row.fid) else "\\HasNoChildren")
    if row.role in ROLE_ATTRIBUTES:
        attributes.append(ROLE_ATTRIBUTES[row.role])
    return tuple(attributes)


async def lsub(session: Session, args: Args) -> AsyncGenerator[Response, None]:
    """Name the subscribed mailboxes that fit; parents of such under "%" are named as \\Noselect (RFC 3501 6.3.9)."""
    tree = await session.tree()
    pattern = args.reference + args.patterns[0]
    for path, subscribed in _subscribed(tree, pattern):
        yield ListResponse(path, () if subscribed else ("\\Noselect",), SEPARATOR, lsub=True)
    yield Ok("Listed.")


def _subscribed(tree: Tree, pattern: str) -> Iterable[tuple[str, bool]]:
    found: dict[str, bool] = {}
    for path in tree.paths():
        if not tree.by_path[path].subscribed:
            continue
        if matches(pattern, path):
            found[path] = True
            continue
        levels = path.split(SEPARATOR)
        for depth in range(1, len(levels)):
            above = SEPARATOR.join(levels[:depth])
            if pattern.endswith("%") and matches(pattern, above):
                found.setdefault(above, False)
    return found.items()


SELECTION = frozenset({"SUBSCRIBED", "REMOTE", "RECURSIVEMATCH", "SPECIAL-USE"})
RETURNED = frozenset({"SUBSCRIBED", "CHILDREN", "SPECIAL-USE", "STATUS"})


def _parse(cursor: Cursor) -> Args:
    cursor.space()
    extended = cursor.peek(b"(")
    selection: frozenset[str] = frozenset()
    if extended:
        selection = frozenset(_options(cursor, SELECTION))
        if "RECURSIVEMATCH" in selection and not selection & {"SUBSCRIBED", "SPECIAL-USE"}:
            raise cursor.error("RECURSIVEMATCH needs another option")  # RFC 5258 3
        cursor.space()
    reference = cursor.mailbox()
    cursor.space()
    patterns = _patterns(cursor)
    args = Args(reference, patterns, selection, extended=extended or len(patterns) > 1)
    if cursor.accept(b" "):
        cursor.keyword("RETURN")
        cursor.space()
        args = _returned(cursor, args._replace(extended=True))
    cursor.end()
    return args


def _patterns(cursor: Cursor) -> tuple[str, ...]:
    if not cursor.accept(b"("):
        return (cursor.list_mailbox(),)
    patterns = [cursor.list_mailbox()]
    while not cursor.accept(b")"):
        cursor.space()
        patterns.append(cursor.list_mailbox())
    return tuple(patterns)


def _options(cursor: Cursor, known: frozenset[str]) -> Iterator[str]:
    cursor.expect(b"(")
    first = True
    while not cursor.accept(b")"):
        if not first:
            cursor.space()
        first = False
        option = cursor.atom().upper()
        if option not in known:
            raise cursor.error(f"{option} is no option here")
        yield option


def _returned(cursor: Cursor, args: Args) -> Args:
    returned = set()
    status: tuple[str, ...] = ()
    for option in _options(cursor, RETURNED):
        if option == "STATUS":
            cursor.space()
            status = parse_items(cursor)
        else:
            returned.add(option)
    return args._replace(returned=frozenset(returned), status=status)


def _parse_lsub(cursor: Cursor) -> Args:
    cursor.space()
    reference = cursor.mailbox()
    cursor.space()
    args = Args(reference, (cursor.list_mailbox(),))
    cursor.end()
    return args


LIST = Feature(
    ("CHILDREN",),
    rfc=9051,
    commands=(Command("LIST", AUTHENTICATED, _parse, list_), Command("LSUB", AUTHENTICATED, _parse_lsub, lsub)),
)
EXTENDED = Feature(("LIST-EXTENDED",), rfc=5258)
LIST_STATUS = Feature(("LIST-STATUS",), rfc=5819)
