"""The folders of an account as mailbox names: paths with "/", INBOX in any case (RFC 9051 5.1). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from services.core.ids import Fid
from services.imap.queries import FolderRow

SEPARATOR = "/"
LEVEL_OCTETS, PATH_OCTETS, LEVELS = 255, 1000, 20
ROLE_ATTRIBUTES = {"drafts": "\\Drafts", "sent": "\\Sent", "junk": "\\Junk", "trash": "\\Trash", "archive": "\\Archive"}
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class BadName(Exception):
    """A name that no mailbox may have; says why."""


def canonical(path: str) -> str:
    """The path as it is compared: INBOX, also as the first of several levels, in capitals."""
    first, slash, rest = path.partition(SEPARATOR)
    return f"INBOX{slash}{rest}" if first.upper() == "INBOX" else path


def checked(path: str) -> str:
    """The canonical path of a mailbox to be made; raises `BadName`."""
    path = canonical(path)
    levels = path.split(SEPARATOR)
    if not all(levels):
        raise BadName("A mailbox name has no empty level.")
    if _CONTROL.search(path):
        raise BadName("A mailbox name has no control characters.")
    if any(character in path for character in "%*"):
        # RFC 9051 5.1: names that LIST would take for patterns help nobody.
        raise BadName('A mailbox name has no "%" or "*".')
    if len(levels) > LEVELS or len(path.encode()) > PATH_OCTETS:
        raise BadName("The mailbox name is too long.")
    if any(len(level.encode()) > LEVEL_OCTETS for level in levels):
        raise BadName(f"A level of a mailbox name has at most {LEVEL_OCTETS} octets.")
    return path


class Tree:
    """All folders of one account by path and number."""

    def __init__(self, rows: Sequence[FolderRow]) -> None:
        self.by_fid = {row.fid: row for row in rows}
        self.path_of: dict[Fid, str] = {}
        for row in rows:
            if (path := self._path(row)) is not None:
                self.path_of[row.fid] = path
        self.by_path = {path: self.by_fid[fid] for fid, path in self.path_of.items()}
        self._parents = {row.parent_fid for row in rows}

    def _path(self, row: FolderRow) -> str | None:
        levels = [row.name]
        while row.parent_fid:
            parent = self.by_fid.get(row.parent_fid)
            if parent is None or len(levels) > LEVELS:
                return None
            row = parent
            levels.append(row.name)
        return SEPARATOR.join(reversed(levels))

    def find(self, path: str) -> FolderRow | None:
        """The folder of that name."""
        return self.by_path.get(canonical(path))

    def has_children(self, fid: Fid) -> bool:
        """Whether a folder lies below it."""
        return fid in self._parents

    def paths(self) -> Iterable[str]:
        """Every path, INBOX first, parents before children."""
        return sorted(self.by_path, key=lambda path: (path.split(SEPARATOR)[0] != "INBOX", path.split(SEPARATOR)))

    def below(self, path: str) -> list[str]:
        """The paths of everything inside a folder."""
        return [other for other in self.by_path if other.startswith(path + SEPARATOR)]


def matches(pattern: str, path: str) -> bool:
    """Whether a path fits a LIST pattern: "*" is anything, "%" anything but the separator (RFC 9051 6.3.9).

    Takes time in proportion to both lengths, whatever the pattern.
    """
    first, slash, rest = path.partition(SEPARATOR)
    # RFC 9051 5.1: INBOX is INBOX in any case of letters, also under a pattern such as "inbo%".
    return _fits(canonical(pattern), path) or (first == "INBOX" and _fits(pattern.lower(), f"inbox{slash}{rest}"))


def _fits(pattern: str, path: str) -> bool:
    places = _skipping({0}, pattern)
    for character in path:
        after: set[int] = set()
        for place in places:
            wanted = pattern[place : place + 1]
            if wanted == "*" or (wanted == "%" and character != SEPARATOR):
                after.add(place)
            elif wanted == character:
                after.add(place + 1)
        places = _skipping(after, pattern)
        if not places:
            return False
    return len(pattern) in places


def _skipping(places: set[int], pattern: str) -> set[int]:
    out = set(places)
    for place in places:
        while pattern[place : place + 1] in ("*", "%"):
            place += 1
            out.add(place)
    return out
