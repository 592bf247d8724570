"""The folders of an account as mailbox names, and the patterns of LIST. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from services.core.foldername import SEPARATOR, canonical, paths
from services.core.ids import Fid
from services.imap.queries import FolderRow

ROLE_ATTRIBUTES = {"drafts": "\\Drafts", "sent": "\\Sent", "junk": "\\Junk", "trash": "\\Trash", "archive": "\\Archive"}


class Tree:
    """All folders of one account by path and number."""

    def __init__(self, rows: Sequence[FolderRow]) -> None:
        self.by_fid = {row.fid: row for row in rows}
        self.path_of = paths(rows)
        self.by_path = {path: self.by_fid[fid] for fid, path in self.path_of.items()}
        self._parents = {row.parent_fid for row in rows}

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
