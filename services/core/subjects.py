"""Every subject on the bus, and the two streams that keep some of them."""

from typing import NamedTuple

from services.core.ids import AccountId
from services.core.line import NANOSECONDS

ROOT = "posta.v1."


def scan() -> str:
    """Door to filter, request and reply: ScanRequest, Verdict."""
    return ROOT + "scan"


def work_local() -> str:
    """Door to delivery: Ticket."""
    return ROOT + "work.local"


def work_remote() -> str:
    """Door to relay: Ticket."""
    return ROOT + "work.remote"


def relay_pods() -> str:
    """Relay pods to each other, that they are there: RelayPod."""
    return ROOT + "relay.pods"


def relay_destination() -> str:
    """Relay pods to each other, and operators to them, a hint: RelayDestination."""
    return ROOT + "relay.destination"


def work_learn() -> str:
    """Whoever judges mail to the engines that learn: Lesson."""
    return ROOT + "work.learn"


def changed(account_id: AccountId) -> str:
    """Any writer to readers of one account, a hint: Changed."""
    return f"{ROOT}changed.{account_id}"


def directory_changed() -> str:
    """Provisioning to every cache, a hint: DirectoryChanged."""
    return ROOT + "directory.changed"


def trace(spool_id: str = ">") -> str:
    """Every step of one message (of all messages without an argument): TraceEvent."""
    return f"{ROOT}trace.{spool_id or 'none'}"


class Keeping(NamedTuple):
    """How NATS is to keep the streams."""

    replicas: int = 1
    trace_days: int = 7
    trace_octets: int = 1024**3


def streams(keeping: Keeping) -> tuple[dict[str, object], ...]:
    """The two of them, as JetStream is told."""
    return (
        {
            "name": "WORK",
            "subjects": [ROOT + "work.>"],
            "retention": "workqueue",
            "storage": "file",
            "duplicate_window": 120 * NANOSECONDS,
            "num_replicas": keeping.replicas,
        },
        {
            "name": "TRACE",
            "subjects": [ROOT + "trace.>"],
            "retention": "limits",
            "storage": "file",
            "discard": "old",
            "max_age": keeping.trace_days * 86_400 * NANOSECONDS,
            "max_bytes": keeping.trace_octets,
            "num_replicas": keeping.replicas,
        },
    )
