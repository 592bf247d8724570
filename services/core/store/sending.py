"""What accounts send, counted where every process sees it, and whether they may.

An hour and a day begin with the first message in them. Counting is one statement on an unlogged table: no message waits
for the disk to be counted, and a crash of Postgres forgives what was sent before it.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.core.ids import AccountId
from services.core.store.engine import Store
from services.core.store.spool import Entry, insert_within

ACTIVE, PAUSED = "active", "paused"


class NotThere(Exception):
    """There is no such account."""


class Limits(NamedTuple):
    """Recipients an hour and a day; 0: no limit."""

    hour: int
    day: int


class State(NamedTuple):
    """Whether an account may send, and its own limits; None: the platform's."""

    sending: str
    hour: int | None
    day: int | None


class Charged(NamedTuple):
    """What became of a message's recipients. `again_at`: when, at the earliest, there is room for more."""

    sending: str
    fits: bool
    tried: int  # recipients offered in the hour, these included
    again_at: datetime
    limits: Limits  # as they hold for the account


_STATE = "SELECT sending, send_hour, send_day FROM accounts WHERE account_id = $1"

_FITS = "(l.per_hour = 0 OR {hour} + $2 <= l.per_hour) AND (l.per_day = 0 OR {day} + $2 <= l.per_day)"
# What began in the future began before the clock was set back: that hour is over. A minute ahead is no future: another
# transaction's now may be a little later than ours.
_WITHIN = "BETWEEN now() - interval '{0}' AND now() + interval '1 minute'"
_IN_HOUR = f"CASE WHEN s.hour_at {_WITHIN.format('1 hour')} THEN s.{{0}} ELSE {{1}} END"
_IN_DAY = f"CASE WHEN s.day_at {_WITHIN.format('1 day')} THEN s.{{0}} ELSE {{1}} END"
# Driver call: every message that is handed in passes here.
_CHARGE = """
WITH limits AS (
  SELECT account_id, sending, coalesce(send_hour, $3) AS per_hour, coalesce(send_day, $4) AS per_day
  FROM accounts WHERE account_id = $1
), first AS (
  SELECT l.account_id, {fits_first} AS fits FROM limits l
), counted AS (
  INSERT INTO sent_counts AS s (account_id, tried, fits, hour, day)
  SELECT account_id, $2, fits, CASE WHEN fits THEN $2 ELSE 0 END, CASE WHEN fits THEN $2 ELSE 0 END FROM first
  ON CONFLICT (account_id) DO UPDATE SET (hour_at, day_at, tried, fits, hour, day) = (
    SELECT {hour_at}, {day_at}, {tried} + $2, {fits_more},
      {hour} + CASE WHEN {fits_more} THEN $2 ELSE 0 END, {day} + CASE WHEN {fits_more} THEN $2 ELSE 0 END
    FROM limits l)
  RETURNING *
)
SELECT l.sending, c.fits, c.tried,
  CASE WHEN l.per_day = 0 OR c.day + $2 <= l.per_day THEN c.hour_at + interval '1 hour' ELSE c.day_at + interval '1 day'
  END, l.per_hour, l.per_day
FROM limits l, counted c
""".format(  # noqa: S608 - constants
    hour_at=_IN_HOUR.format("hour_at", "now()"),
    day_at=_IN_DAY.format("day_at", "now()"),
    tried=_IN_HOUR.format("tried", "0"),
    hour=_IN_HOUR.format("hour", "0"),
    day=_IN_DAY.format("day", "0"),
    fits_first=_FITS.format(hour="0", day="0"),
    fits_more=_FITS.format(hour=_IN_HOUR.format("hour", "0"), day=_IN_DAY.format("day", "0")),
)

_REFUND = """
UPDATE sent_counts SET hour = greatest(0, hour - $2), day = greatest(0, day - $2), tried = greatest(0, tried - $2)
WHERE account_id = $1
"""

_BAD = f"""
INSERT INTO sent_counts AS s (account_id, bad) SELECT account_id, 1 FROM accounts WHERE account_id = $1
ON CONFLICT (account_id) DO UPDATE SET
  bad = CASE WHEN s.bad_at {_WITHIN.format("1 hour")} THEN s.bad ELSE 0 END + 1,
  bad_at = CASE WHEN s.bad_at {_WITHIN.format("1 hour")} AND s.bad > 0 THEN s.bad_at ELSE now() END
RETURNING bad
"""  # noqa: S608 - constant

_PAUSE = "UPDATE accounts SET sending = 'paused' WHERE account_id = $1 AND sending = 'active' RETURNING account_id"
_RESUME = text("UPDATE accounts SET sending = 'active' WHERE account_id = :account_id")
_FORGIVE = text("DELETE FROM sent_counts WHERE account_id = :account_id")
_SET_LIMITS = text("""
UPDATE accounts SET send_hour = :hour, send_day = :day WHERE account_id = :account_id
""")


async def state(store: Store, account_id: AccountId) -> State:
    """Whether the account may send. Raises `NotThere`."""
    async with store.driver("sending.state") as conn:
        row = await conn.fetchrow(_STATE, account_id)
    if row is None:
        raise NotThere(account_id)
    return State(*row)


async def charge(store: Store, account_id: AccountId, recipients: int, limits: Limits) -> Charged:
    """Count a message for so many recipients, unless that is more than the account may have now.

    `limits` hold where the account has none of its own. Raises `NotThere`.
    """
    async with store.driver("sending.charge") as conn:
        row = await conn.fetchrow(_CHARGE, account_id, recipients, *limits)
    if row is None:
        raise NotThere(account_id)
    return Charged._make([*row[:4], Limits(*row[4:])])


async def refund(store: Store, account_id: AccountId, recipients: int) -> None:
    """Take back what was counted for a message that was put off for a reason of ours: it will come again."""
    async with store.driver("sending.refund") as conn:
        await conn.execute(_REFUND, account_id, recipients)


async def bad(store: Store, account_id: AccountId) -> int:
    """Count a message that was spam or carried a virus; how many there were in the hour."""
    async with store.driver("sending.bad") as conn:
        return int(await conn.fetchval(_BAD, account_id) or 0)


async def pause(store: Store, account_id: AccountId, notice: Entry | None, due_in_s: float) -> bool:
    """Let the account send no more, and keep the mail that tells of it, in one commit.

    False, and nothing kept, where it is paused already.
    """
    async with store.driver("sending.pause") as conn, conn.transaction():
        if await conn.fetchrow(_PAUSE, account_id) is None:
            return False
        if notice is not None:
            await insert_within(conn, [notice], due_in_s)
    return True


async def resume(conn: AsyncConnection, account_id: AccountId) -> None:
    """Let the account send again, with a clean sheet."""
    await conn.execute(_RESUME, {"account_id": account_id})
    await conn.execute(_FORGIVE, {"account_id": account_id})


async def set_limits(conn: AsyncConnection, account_id: AccountId, hour: int | None, day: int | None) -> None:
    """Give the account limits of its own; None: the platform's, 0: no limit."""
    await conn.execute(_SET_LIMITS, {"account_id": account_id, "hour": hour, "day": day})
