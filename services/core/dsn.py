"""Delivery status notifications (RFC 3464) as bytes. Pure: the clock and the ids are arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime


@dataclass(frozen=True, slots=True)
class Report:
    """What became of one recipient. `action`: failed | delayed | delivered | relayed (RFC 3464 2.3.3)."""

    recipient: str
    action: str
    status: str  # enhanced code, "5.2.2"
    diagnostic: str  # one line for a person; the remote's reply where there was one
    orcpt: str | None = None
    remote: str | None = None
    retry_until: datetime | None = None  # of a delayed one (RFC 3464 2.3.9)


@dataclass(frozen=True, slots=True)
class Notice:
    """Everything one notification is made of."""

    hostname: str
    sender: str  # to whom it goes
    received_at: datetime
    now: datetime
    message_id: str  # without angle brackets
    reports: Sequence[Report]
    original: bytes  # the message: its octets where `full`, else at least its header
    full: bool = False  # RFC 3461 4.3: RET=FULL
    envid: str | None = None


_SUBJECTS = {
    "failed": "Undelivered mail: your message could not be delivered",
    "delayed": "Delayed mail: your message is still on its way",
    "delivered": "Delivered mail: your message has arrived",
    "relayed": "Relayed mail: your message was handed on",
}
_LEADS = {
    "failed": "Your message could not be delivered to the following recipients, and will not be tried again:",
    "delayed": "Your message could not be delivered yet. It will be tried again; you need not do anything.",
    "delivered": "Your message was delivered to the following recipients:",
    "relayed": "Your message was handed to a system that does not say what becomes of it. Its recipients are:",
}
# What a NOTIFY parameter has to hold for a sender to hear of it (RFC 3461 4.1, 5.2.2).
_WANTED = {"failed": "FAILURE", "delayed": "DELAY", "delivered": "SUCCESS", "relayed": "SUCCESS"}


def wants_notice(sender: str, notify: str | None, action: str) -> bool:
    """Whether the sender is to be told (RFC 3461 4.1): of trouble unless it said otherwise, of success if it asked."""
    if not sender:
        return False  # RFC 5321 6.1: nothing is ever sent about a message with a null reverse-path
    if notify is None:
        return action in ("failed", "delayed")
    return _WANTED[action] in notify.upper().split(",")


def compose(notice: Notice) -> bytes:
    """The notification as a whole message with CRLF line ends, to be sent with a null reverse-path (RFC 3464 2)."""
    utf8 = any(not r.recipient.isascii() for r in notice.reports)
    boundary = f"=_posta_{notice.message_id.partition('@')[0]}"
    returned = notice.original if notice.full else _header_of(notice.original)
    eight_bit = not returned.isascii()
    lead = _lead(notice.reports)
    person = [_LEADS[lead], ""]
    for report in notice.reports:
        person += [f"  <{report.recipient}>", f"      {_line(report.diagnostic)}", ""]
    person += [f"This notice was made by {notice.hostname}.", ""]
    parts = [
        f"--{boundary}",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
        "",
        *person,
        f"--{boundary}",
        # RFC 6533 3: addresses outside ASCII need the global form.
        f"Content-Type: message/{'global-delivery-status' if utf8 else 'delivery-status'}",
        *(["Content-Transfer-Encoding: 8bit"] if utf8 else []),
        "",
        *_status(notice, utf8),
        f"--{boundary}",
        f"Content-Type: {'message/rfc822' if notice.full else 'text/rfc822-headers'}",
        *(["Content-Transfer-Encoding: 8bit"] if eight_bit else []),
        "",
        "",
    ]
    return b"".join(
        (
            "\r\n".join([*_header(notice, boundary, lead), "", ""]).encode(),
            "\r\n".join(parts).encode(),
            returned,
            f"\r\n--{boundary}--\r\n".encode(),
        )
    )


def _lead(reports: Sequence[Report]) -> str:
    actions = {r.action for r in reports}
    return next(action for action in _SUBJECTS if action in actions)


def _header(notice: Notice, boundary: str, lead: str) -> list[str]:
    return [
        f"From: Mail Delivery System <postmaster@{notice.hostname}>",
        f"To: <{notice.sender}>",
        f"Subject: {_SUBJECTS[lead]}",
        f"Date: {format_datetime(notice.now)}",
        f"Message-ID: <{notice.message_id}>",
        "Auto-Submitted: auto-replied",  # RFC 3834 5: nobody's vacation answers this
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status;\r\n boundary="{boundary}"',
    ]


def _status(notice: Notice, utf8: bool) -> list[str]:
    kind = "utf-8" if utf8 else "rfc822"
    lines = [f"Reporting-MTA: dns; {notice.hostname}"]
    if notice.envid:
        lines.append(f"Original-Envelope-Id: {_line(notice.envid)}")
    lines += [f"Arrival-Date: {format_datetime(notice.received_at)}", ""]
    for report in notice.reports:
        if report.orcpt:
            lines.append(f"Original-Recipient: {_line(report.orcpt)}")
        lines += [
            f"Final-Recipient: {kind}; {report.recipient}",
            f"Action: {report.action}",
            f"Status: {report.status}",
        ]
        if report.remote:
            lines.append(f"Remote-MTA: dns; {report.remote}")
        lines.append(f"Diagnostic-Code: smtp; {_line(report.diagnostic)}")
        if report.retry_until:
            lines.append(f"Will-Retry-Until: {format_datetime(report.retry_until)}")
        lines.append("")
    return lines


def _line(text: str) -> str:
    """Text that may come from a peer, on one line."""
    return " ".join(text.split())[:900]


def _header_of(message: bytes) -> bytes:
    end = message.find(b"\r\n\r\n")
    return message[: end + 2] if end >= 0 else message
