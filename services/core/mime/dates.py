"""RFC 5322 dates, as senders write them."""

import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

_MONTHS = {
    name: number for number, name in enumerate(b"jan feb mar apr may jun jul aug sep oct nov dec".split(), start=1)
}
# RFC 5322 4.3; single letters and every other name say nothing about the offset and read as +0000.
_ZONES = {
    b"edt": -240,
    b"est": -300,
    b"cdt": -300,
    b"cst": -360,
    b"mdt": -360,
    b"mst": -420,
    b"pdt": -420,
    b"pst": -480,
}
_DATE = re.compile(
    rb"\s*(?:[A-Za-z]{2,12}\.?\s*,?\s*)?(\d{1,2})[\s-]+([A-Za-z]{3})[A-Za-z]*\.?[\s-]+(\d{2,4})[\s,]+"
    rb"(\d{1,2})[:.](\d{1,2})(?:[:.](\d{1,2}))?(?:[.,]\d+)?\s*([+-]\d{2}:?\d{2}|[A-Za-z]+)?"
)
# The form of asctime(3), which some senders put in: Thu Jan  1 00:00:00 2026.
_ASCTIME = re.compile(
    rb"\s*[A-Za-z]{3},?\s+([A-Za-z]{3})\s+(\d{1,2})\s+(\d{1,2}):(\d{2}):(\d{2})\s+(?:([A-Z]{3,4}|[+-]\d{4})\s+)?(\d{4})"
)
_COMMENT = re.compile(rb"\([^()]*+\)")


class Sent(NamedTuple):
    """A point in time and the sender's offset from UTC in minutes."""

    utc: datetime
    offset: int


def _offset(zone: bytes | None) -> int | None:
    if not zone:
        return 0
    if zone[:1] in b"+-":
        digits = zone[1:].replace(b":", b"")
        hours, minutes = int(digits[:2]), int(digits[2:])
        if minutes > 59:
            return None
        return -(hours * 60 + minutes) if zone[:1] == b"-" else hours * 60 + minutes
    return _ZONES.get(zone.lower(), 0)


def _year(digits: bytes) -> int:
    year = int(digits)
    if len(digits) == 2:  # RFC 5322 4.3
        return year + 2000 if year < 50 else year + 1900
    return year + 1900 if len(digits) == 3 else year


def parse_date(raw: bytes) -> Sent | None:
    """The moment an unfolded Date value names, or None if it names none (RFC 5322 3.3 and 4.3)."""
    if len(raw) > 200:
        return None
    if b"(" in raw:
        raw = _COMMENT.sub(b" ", raw)
    match = _DATE.match(raw)
    if match is not None:
        day, month, year, hour, minute, second, zone = match.groups()
    else:
        match = _ASCTIME.match(raw)
        if match is None:
            return None
        month, day, hour, minute, second, zone, year = match.groups()
    number = _MONTHS.get(month.lower())
    offset = _offset(zone)
    if number is None or offset is None:
        return None
    try:
        # A leap second has no datetime of its own.
        local = datetime(_year(year), number, int(day), int(hour), int(minute), min(int(second or 0), 59), tzinfo=UTC)
        return Sent(local - timedelta(minutes=offset), offset)
    except (ValueError, OverflowError):
        return None
