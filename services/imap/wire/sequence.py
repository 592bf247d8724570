"""Sets of sequence numbers and UIDs."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

# Inclusive, ascending, apart from each other by more than one.
Ranges: TypeAlias = "tuple[tuple[int, int], ...]"

STAR = 0
HIGHEST = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class SequenceSet:
    """A set as the client wrote it: (first, last) pairs where `STAR` stands for `*`; or `saved`, which is `$`."""

    ranges: tuple[tuple[int, int], ...]
    saved: bool = False

    @property
    def has_star(self) -> bool:
        """Whether the set speaks of the largest number in use."""
        return any(STAR in pair for pair in self.ranges)

    @property
    def largest(self) -> int:
        """The largest number written out, 0 for none: above the last sequence number it is an error to use."""
        return max((max(pair) for pair in self.ranges), default=0)

    def resolve(self, largest: int) -> Ranges:
        """The set as ranges, `*` being `largest`.

        It may be written in any order and with overlaps: `4:2,3,*` (RFC 9051 9: seq-range). In an empty mailbox
        (`largest` 0) what names `*` is empty: there is no largest number.
        """
        pairs: list[tuple[int, int]] = []
        for first, last in self.ranges:
            if first == STAR or last == STAR:
                if not largest:
                    continue
                first, last = first or largest, last or largest
            pairs.append((first, last) if first <= last else (last, first))
        return merged(pairs)


def merged(pairs: Iterable[tuple[int, int]]) -> Ranges:
    """Inclusive (low, high) pairs in any order as the fewest ascending ranges."""
    result: list[tuple[int, int]] = []
    end = -1
    for low, high in sorted(pairs):
        if result and low <= end + 1:
            if high > end:
                result[-1] = (result[-1][0], high)
                end = high
        else:
            result.append((low, high))
            end = high
    return tuple(result)


def holds(ranges: Ranges, number: int) -> bool:
    """Whether `number` lies in the ranges; logarithmic in their count."""
    at = bisect_right(ranges, (number, HIGHEST + 1))
    return at > 0 and number <= ranges[at - 1][1]


def spans(numbers: Iterable[int]) -> Ranges:
    """Ascending numbers as the fewest ranges."""
    if isinstance(numbers, range) and numbers.step == 1:
        return ((numbers.start, numbers.stop - 1),) if numbers else ()
    result: list[tuple[int, int]] = []
    first = last = -2
    for number in numbers:
        if number == last + 1:
            last = number
            continue
        if first >= 0:
            result.append((first, last))
        first = last = number
    if first >= 0:
        result.append((first, last))
    return tuple(result)
