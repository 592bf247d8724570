"""What a submission server adds to a header that lacks it (RFC 6409 8). Pure: clock and id are arguments."""

from __future__ import annotations

from datetime import datetime
from email.utils import format_datetime

from services.core.ids import SpoolId
from services.submission.policy import Letter


def missing(letter: Letter, now: datetime, spool_id: SpoolId, host: str) -> bytes:
    """Whole header lines for Date (RFC 6409 8.2) and Message-ID (8.3), where the user's program left them out."""
    lines = []
    if not letter.has_date:
        lines.append(f"Date: {format_datetime(now)}\r\n")
    if not letter.has_message_id:
        lines.append(f"Message-ID: <{spool_id}@{host}>\r\n")
    return "".join(lines).encode()
