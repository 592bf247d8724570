"""When what could not be sent is tried again, when its sender is told, and when it is given up. Pure.

`chance` is a number from 0 to below 1 that spreads what failed together, so that it does not come back together.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

# Greylisting hosts let the second attempt pass after a minute or a few; after a day nobody waits for minutes.
_FIRST_S, _LONGEST_S = 150.0, 4 * 3600.0
_PROBE_FIRST_S, _PROBE_LONGEST_S = 60.0, 3600.0
_SPREAD = 0.2


class Patience(NamedTuple):
    """How long the queue tries (RFC 5321 4.5.4.1: at least 4 to 5 days), and when it first says that it does."""

    warn_after: timedelta
    give_up_after: timedelta


def retry_wait_s(attempts: int, chance: float) -> float:
    """How long after the n-th attempt (from 1) the next one is: 2.5 minutes, doubling up to 4 hours, spread by a fifth.

    >>> [retry_wait_s(n, 0) / 60 for n in (1, 2, 3, 8, 9, 200)]
    [2.5, 5.0, 10.0, 240.0, 240.0, 240.0]
    """
    return _grown(_FIRST_S, _LONGEST_S, attempts) * (1 + _SPREAD * chance)


def probe_wait_s(failures: int, chance: float) -> float:
    """How long a destination that cannot be had for the n-th time (from 1) is left alone: a minute, at most an hour."""
    return _grown(_PROBE_FIRST_S, _PROBE_LONGEST_S, failures) * (1 + _SPREAD * chance)


def _grown(first_s: float, longest_s: float, times: int) -> float:
    # The exponent is bounded first: 2.0 ** 2000 is no float.
    return float(min(first_s * 2.0 ** min(times - 1, 32), longest_s))


LONGEST_WAIT_S = _LONGEST_S * (1 + _SPREAD)  # no wait is longer, of a recipient or of a destination


class GiveUp(NamedTuple):
    """No more attempts: its time has run out."""


class Again(NamedTuple):
    """Another attempt after `wait_s`. `warn`: tell the sender now; by `notice_at` at the latest look at it singly."""

    wait_s: float
    warn: bool
    notice_at: datetime


def after_failure(
    now: datetime, received_at: datetime, notice_at: datetime, attempts: int, patience: Patience, chance: float
) -> Again | GiveUp:
    """What follows the failed attempt number `attempts` (from 1). `notice_at`: as the one before has left it.

    The last attempt is made when the time runs out, not up to four hours before.
    """
    warn_at, end = received_at + patience.warn_after, received_at + patience.give_up_after
    if now >= end:
        return GiveUp()
    warned = notice_at > warn_at
    warn = not warned and now >= warn_at
    wait_s = min(retry_wait_s(attempts, chance), (end - now).total_seconds())
    return Again(wait_s, warn, end if warn or warned else warn_at)
