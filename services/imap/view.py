"""The selected folder as its client knows it: which uid stands at which sequence number, and what it must be told.

Pure. Invariants
- Sequence numbers change only by what `apply` returns: the client and this view never disagree about them.
- The list of uids is loaded late: SELECT knows three counters, and a client that only idles never asks for more. A
  folder that never lost a message needs no list at all (its uids are a `range`).
- What the store no longer has, but the client has not been told, stays in the view (`gone`) until it may be told.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

from services.imap.flagtext import Keywords, flags_text
from services.imap.wire.responses import Exists, Raw, Recent, Response

Uids: TypeAlias = "range | array[int]"
# Half-open ranges of positions in the view (sequence number - 1), ascending and apart.
Spans: TypeAlias = "list[tuple[int, int]]"


class FlagRow(NamedTuple):
    """The flags of one message. `bits`: the `Flag` bits, and 16 for \\Seen."""

    uid: int
    modseq: int
    bits: int
    keywords: Sequence[str] | None


class Changes(NamedTuple):
    """What happened in a folder since a number, as one picture of the store."""

    cn: int
    uidnext: int
    total: int
    flags: list[FlagRow]  # messages the view has, whose flags moved
    gone: list[int]  # uids that were expunged
    new: list[int]  # uids that came, ascending


class Dialect(NamedTuple):
    """How the client wants to be told; grows with ENABLE (RFC 5161)."""

    modseq: bool = False  # CONDSTORE
    vanished: bool = False  # QRESYNC
    uidonly: bool = False  # RFC 9586
    utf8: bool = False  # RFC 6855


class OutOfView(Exception):
    """A sequence number that no message has (RFC 9051 9: seq-number)."""


class View:
    """The client's picture of one folder at change number `cn`."""

    __slots__ = ("claimed", "cn", "first_recent", "gone", "keywords", "recent", "told", "total", "uidnext", "uids")

    def __init__(
        self, *, cn: int, uidnext: int, total: int, recent: int, first_recent: int, read_only: bool = False
    ) -> None:
        """`total` messages with uids below `uidnext`; `recent` of them have uids from `first_recent` on."""
        self.cn, self.uidnext, self.total = cn, uidnext, total
        self.recent, self.first_recent = recent, first_recent
        # As many messages as uids were ever given out: none is missing.
        self.uids: Uids | None = range(1, uidnext) if total == uidnext - 1 else None
        self.claimed = uidnext  # below this the store's mark of recent messages was taken off
        self.keywords = Keywords(read_only=read_only)
        self.gone: set[int] = set()
        self.told: list[tuple[int, int]] = []

    def load(self, uids: Iterable[int]) -> None:
        """Take the uids the folder had at `cn`, ascending."""
        self.uids = array("I", uids)
        self.total = len(self.uids)

    @property
    def known(self) -> Uids:
        """Every uid, by position. The list must have been loaded."""
        assert self.uids is not None
        return self.uids

    def seq(self, uid: int) -> int:
        """The sequence number of a uid, 0 if the view does not have it."""
        uids = self.known
        if isinstance(uids, range):
            return uid - uids.start + 1 if uid in uids else 0
        at = bisect_left(uids, uid)
        return at + 1 if at < len(uids) and uids[at] == uid else 0

    def seqs(self, uids: Sequence[int]) -> list[int]:
        """The sequence numbers of ascending uids; those the view lacks are left out."""
        known = self.known
        if isinstance(known, range):
            start = known.start - 1
            return [uid - start for uid in uids if uid in known]
        if len(uids) < 64:
            return [seq for uid in uids if (seq := self.seq(uid))]
        place = dict(zip(known, range(1, len(known) + 1), strict=True))
        return [place[uid] for uid in uids if uid in place]

    # ---- which messages a command names -----------------------------------------------------------------------

    def spans(self, ranges: Iterable[tuple[int, int]], *, by_uid: bool) -> Spans:
        """The positions that a set names; 0 stands for "*". Raises `OutOfView` for a sequence number nobody has.

        Uids that are not there name nothing (RFC 9051 6.4.9).
        """
        known = self.known
        count = len(known)
        last = (known[-1] if count else 0) if by_uid else count
        found: Spans = []
        for low, high in ranges:
            low, high = sorted((low or last, high or last))
            if by_uid:
                first, end = bisect_left(known, low), bisect_right(known, high)
            elif not count and high == 0:
                continue
            elif high > count:
                # An empty folder has no "*": the range 1:* then names nothing rather than a message 1.
                if not count:
                    continue
                raise OutOfView(high)
            else:
                first, end = max(low, 1) - 1, high
            if first < end:
                found.append((first, end))
        return _merged(found)

    def pick(self, spans: Spans) -> list[int]:
        """The uids at those positions, ascending."""
        known = self.known
        return [uid for first, end in spans for uid in known[first:end]]

    def spans_of(self, uids: Sequence[int]) -> Spans:
        """The positions of ascending uids."""
        return _merged([(seq - 1, seq) for seq in self.seqs(uids)])

    # ---- what the client is told ------------------------------------------------------------------------------

    def tell_own(self, first: int, last: int) -> None:
        """The client knows the flag changes numbered so already: it asked for them silently or saw the answer."""
        self.told.append((first, last))

    def needs_uids(self, changes: Changes, dialect: Dialect, *, expunges: bool) -> bool:
        """Whether the list must be loaded before `apply`: something is to be said by sequence number."""
        if self.uids is not None:
            return False
        if changes.flags or self.gone:
            return True
        return bool(changes.gone) and not (expunges and dialect.vanished)

    def apply(self, changes: Changes, dialect: Dialect, *, expunges: bool) -> list[Response]:
        """Move on to what the store has now; returns what to tell, in the order to tell it.

        `expunges` False: this is a moment at which no message may lose its number (RFC 9051 7.5.1).
        """
        self.gone.update(uid for uid in changes.gone if uid < self.uidnext)
        out: list[Response] = []
        if expunges and self.gone:
            out.append(Raw(self._expunge(dialect)))
        if changes.new:
            self._grow(changes.new)
            out += [Exists(self.total), Recent(self.recent)]
        self.uidnext = changes.uidnext
        rows = [row for row in changes.flags if not self._is_told(row.modseq)]
        if rows and (lines := self.flag_lines(rows, dialect)):
            out.append(Raw(lines))
        self.cn = changes.cn
        self.told.clear()
        return out

    def flag_lines(self, rows: Iterable[FlagRow], dialect: Dialect) -> bytes:
        """FETCH responses with the flags of those messages that the client may hear of."""
        lines = []
        for uid, modseq, bits, keywords in sorted(rows):
            seq = self.seq(uid)
            if not seq or uid in self.gone:
                continue
            if keywords:
                self.keywords.meet(keywords)
            flags = flags_text(bits, keywords, uid >= self.first_recent)
            # RFC 7162 3.1: a flag change told to a CONDSTORE client carries its number.
            rest = b"FLAGS (%b) MODSEQ (%d)" % (flags, modseq) if dialect.modseq else b"FLAGS (%b)" % flags
            if dialect.uidonly:
                lines.append(b"* %d UIDFETCH (%b)\r\n" % (uid, rest))
            else:
                lines.append(b"* %d FETCH (UID %d %b)\r\n" % (seq, uid, rest))
        return b"".join(lines)

    def _is_told(self, modseq: int) -> bool:
        return any(first <= modseq <= last for first, last in self.told)

    def _grow(self, new: Sequence[int]) -> None:
        self.total += len(new)
        self.recent += len(new)
        if self.uids is None:
            return
        if isinstance(self.uids, range):
            start = self.uids.start if len(self.uids) else new[0]
            if new[0] == (self.uids.stop if len(self.uids) else new[0]) and new[-1] - new[0] + 1 == len(new):
                self.uids = range(start, new[-1] + 1)
                return
            self.uids = array("I", self.uids)
        self.uids.extend(new)

    def _expunge(self, dialect: Dialect) -> bytes:
        gone, self.gone = sorted(self.gone), set()
        self.recent -= len(gone) - bisect_left(gone, self.first_recent)
        if self.uids is None:
            self.total -= len(gone)
            return b"* VANISHED %b\r\n" % number_set(gone)
        seqs = self.seqs(gone)
        self._remove(seqs)
        self.total = len(self.known)
        if dialect.vanished or dialect.uidonly:
            return b"* VANISHED %b\r\n" % number_set(gone)
        # From the end: so each number still is what it was before the first of them.
        return b"".join([b"* %d EXPUNGE\r\n" % seq for seq in reversed(seqs)])

    def _remove(self, seqs: list[int]) -> None:
        known = self.known
        if len(seqs) == len(known):
            self.uids = range(0)
            return
        kept = known if isinstance(known, array) else array("I", known)
        for first, end in reversed(_merged([(seq - 1, seq) for seq in seqs])):
            del kept[first:end]
        self.uids = kept


def _merged(spans: Spans) -> Spans:
    spans.sort()
    out: Spans = []
    for first, end in spans:
        if out and first <= out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        else:
            out.append((first, end))
    return out


def number_set(numbers: Sequence[int]) -> bytes:
    """Ascending numbers as the shortest IMAP set: 1:3,7."""
    parts = [b"%d" % a if a + 1 == b else b"%d:%d" % (a, b - 1) for a, b in _merged([(n, n + 1) for n in numbers])]
    return b",".join(parts)
