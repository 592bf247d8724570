"""What the queue hands to whoever carries mail away, and what it hears back. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol


class Addressee(NamedTuple):
    """One recipient as it goes into RCPT; `notify` and `orcpt` as RFC 3461 has them, None: not given.

    With xtext undone, as our doors hand it on: the carrier writes it anew. So it is with a letter's `envid`.
    """

    address: str
    notify: str | None = None
    orcpt: str | None = None


@dataclass(frozen=True, slots=True)
class Letter:
    """One message for some recipients of one destination. `octets` is the whole message, signed and ready."""

    spool_id: str
    sender: str  # empty: the null reverse-path
    addressees: tuple[Addressee, ...]
    octets: bytes
    smtputf8: bool = False
    ret: str | None = None
    envid: str | None = None
    requiretls: bool = False


@dataclass(frozen=True, slots=True)
class Smarthost:
    """A relay that takes mail for anywhere (RFC 6409 or RFC 5321), with the login it asks for, if any.

    `locked`: there is a password, and it cannot be had.
    """

    host: str
    port: int
    implicit_tls: bool = False
    username: str = ""
    password: str = ""
    locked: bool = False


class Route(NamedTuple):
    """Where a letter goes: to the MX hosts of `domain`, or through a smarthost."""

    domain: str
    smarthost: Smarthost | None = None


class Fate(Enum):
    """What became of one recipient."""

    SENT = "sent"
    LATER = "later"
    FAILED = "failed"


class Outcome(NamedTuple):
    """One recipient's fate, in the remote's words or in ours where no remote spoke.

    `host` is who said it, empty where nobody was reached. `relayed_dsn`: the next hop honours NOTIFY itself (RFC 3461
    5.2.2), so no notice of success is due from us. `unreachable`: the destination as a whole cannot be had now, so the
    rest of its queue need not be tried.
    """

    fate: Fate
    code: int
    enhanced: str
    text: str
    host: str = ""
    relayed_dsn: bool = False
    unreachable: bool = False


class Carrier(Protocol):
    """Whoever can carry a letter away."""

    async def carry(self, route: Route, letter: Letter) -> list[Outcome]:
        """One outcome for each addressee, in order. Raises nothing but CancelledError.

        Cancelling it may leave the remote with a message it has accepted: the caller then knows nothing.
        """
