"""What a listener is told about itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from services.core.crowd import Limits


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds that the peer may take (RFC 5321 4.5.3.2). Our own work is bounded by whoever does it."""

    command_s: float = 300.0  # for the next command line, whole
    block_s: float = 180.0  # for the next octets of a message, or to read our replies
    idle_s: float = 1800.0  # for a session to begin, or offer, the next message, whatever else it says
    handshake_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Options:
    """One listener's name, limits and demands. `hostname` is what greets and what EHLO answers."""

    hostname: str
    max_size: int = 50 * 1024 * 1024  # octets of a message, as announced by SIZE
    max_recipients: int = 1000  # RFC 5321 4.5.3.1.8 asks for at least 100
    max_connections: int = 2000
    limits: Limits = field(default_factory=Limits)  # of one client and its network
    max_errors: int = 30  # 5xx replies in a row without a message kept, then 421
    require_tls: bool = False  # nothing of substance before TLS
    require_auth: bool = False  # no MAIL before AUTH
    bare_newlines: Literal["refuse", "keep"] = "refuse"
    banner: str = "ESMTP Posta"
    extra_keywords: tuple[str, ...] = ()  # EHLO lines of the door's own
    timeouts: Timeouts = field(default_factory=Timeouts)
