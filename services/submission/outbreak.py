"""When an account is paused for sending, and the mail that says so. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from email.utils import format_datetime

from services.contracts.v1.mail_pb2 import Verdict


def is_bad(verdict: Verdict, junk_score: float) -> bool:
    """Whether a message that somebody hands in is one that he would not send himself: a virus, or spam."""
    if verdict.score >= junk_score or any(finding.kind == "virus" for finding in verdict.findings):
        return True
    # An engine may judge by a scale of its own.
    return verdict.kind == "spam" and verdict.action in (Verdict.JUNK, Verdict.QUARANTINE, Verdict.REJECT)


def notice(account: str, why: str, hostname: str, to: Sequence[str], now: datetime, message_id: str) -> bytes:
    """A whole message with CRLF line ends. `why`: the end of "Sending is paused because ...", from us alone."""
    lines = (
        f"From: Mail system <postmaster@{hostname}>",
        f"To: {', '.join(f'<{each}>' for each in to)}",
        "Subject: Sending is paused for an account",
        f"Date: {format_datetime(now)}",
        f"Message-ID: <{message_id}>",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
        "",
        f"Sending is paused for <{account}>, because {why}.",
        "",
        "Mail for the account still arrives and can be read. Nothing is sent until a",
        "postmaster says so:",
        "",
        f"  posta account resume {account}",
        "",
        "If you have not sent such mail, somebody else knows your password, or a program",
        "on one of your devices uses it: change it first, and the app passwords too.",
        "",
        f"This notice was made by {hostname}.",
        "",
    )
    return "\r\n".join(lines).encode()
