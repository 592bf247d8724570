"""Folder names as people write them: paths with "/", INBOX in any case (RFC 9051 5.1). Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from services.core.ids import Fid

SEPARATOR = "/"
LEVEL_OCTETS, PATH_OCTETS, LEVELS = 255, 1000, 20
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class BadName(Exception):
    """A name that no mailbox may have; says why."""


class Placed(Protocol):
    """A folder, as far as its path needs it."""

    @property
    def fid(self) -> Fid: ...
    @property
    def parent_fid(self) -> Fid: ...
    @property
    def name(self) -> str: ...


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


def paths(rows: Sequence[Placed]) -> dict[Fid, str]:
    """The path of every folder of an account, without those that hang in the air."""
    by_fid = {row.fid: row for row in rows}
    found: dict[Fid, str] = {}
    for row in rows:
        if (path := _path(row, by_fid)) is not None:
            found[row.fid] = path
    return found


def _path(row: Placed, by_fid: dict[Fid, Placed]) -> str | None:
    levels = [row.name]
    while row.parent_fid:
        parent = by_fid.get(row.parent_fid)
        if parent is None or len(levels) > LEVELS:
            return None
        row = parent
        levels.append(row.name)
    return SEPARATOR.join(reversed(levels))
