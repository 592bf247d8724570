"""What is to be done for a recipient, decided from facts alone. Sieve will stand between the two."""

from __future__ import annotations

from typing import NamedTuple

from services.core.dsn import Report
from services.core.store.spool import Due


class Place(NamedTuple):
    """Put the message into the folder with this role."""

    due: Due
    role: str


class Refuse(NamedTuple):
    """The message cannot be delivered to this recipient, now or later."""

    due: Due
    report: Report


Plan = Place | Refuse


def plan(due: Due, pending_octets: int) -> Plan:
    """Decide for one recipient. `pending_octets`: what earlier plans of the batch already put into the account."""
    if due.delivered:
        return Place(due, "inbox")  # placed before, and counted in what the account holds; it will not be placed again
    if not due.active:
        return Refuse(due, Report(due.address, "failed", "5.2.1", "550 5.2.1 The mailbox is gone", due.orcpt))
    # The door refused what was over quota when it was offered; this one lost the race to the last octet.
    if due.quota_octets is not None and due.used_octets + pending_octets + due.size > due.quota_octets:
        return Refuse(due, Report(due.address, "failed", "5.2.2", "552 5.2.2 The mailbox is full", due.orcpt))
    return Place(due, "junk" if due.junk else "inbox")


def retry_wait_s(attempts: int) -> float:
    """How long to wait after the n-th (from 0) unexpected failure."""
    return float(min(30 * 2**attempts, 3600))
