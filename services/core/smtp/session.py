"""What is known of one connection and of the mail transaction it is in. Values; whoever speaks SMTP changes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from services.core.address import Address
from services.core.ends import Ends


class Tls(NamedTuple):
    """What the handshake agreed on: `TLSv1.3`, `TLS_AES_256_GCM_SHA384`."""

    version: str
    cipher: str


@dataclass(frozen=True, slots=True)
class Sender:
    """MAIL FROM and its parameters. `mailbox` None is the null reverse-path (RFC 5321 4.5.5)."""

    mailbox: Address | None
    size: int | None = None  # RFC 1870: octets announced
    body: str = "7BIT"  # 7BIT | 8BITMIME
    smtputf8: bool = False
    ret: str | None = None  # RFC 3461 4.3: FULL | HDRS
    envid: str | None = None  # RFC 3461 4.4, xtext undone
    requiretls: bool = False  # RFC 8689: never to be passed on without TLS
    auth: str | None = None  # RFC 4954 5, xtext undone; a claim, no proof

    @property
    def address(self) -> str:
        """As it goes into an envelope: "" for the null reverse-path."""
        return "" if self.mailbox is None else str(self.mailbox)


@dataclass(frozen=True, slots=True)
class Recipient:
    """RCPT TO and its parameters."""

    mailbox: Address
    notify: frozenset[str] = frozenset()  # RFC 3461 4.1: {NEVER} or some of SUCCESS, FAILURE, DELAY; empty: not said
    orcpt: str | None = None  # RFC 3461 4.2: `rfc822;bob@example.org`, xtext undone

    @property
    def address(self) -> str:
        """As it goes into an envelope."""
        return str(self.mailbox)


@dataclass(slots=True)
class Transaction:
    """From MAIL to the reply that ends it."""

    sender: Sender
    recipients: list[Recipient] = field(default_factory=list)
    chunks: list[bytes] | None = None  # of BDAT; None until the message begins, by DATA too
    facts: object | None = None  # whatever the door wants to remember; it alone knows the type

    @property
    def size(self) -> int | None:
        return self.sender.size

    @property
    def body(self) -> str:
        return self.sender.body

    @property
    def smtputf8(self) -> bool:
        return self.sender.smtputf8

    @property
    def ret(self) -> str | None:
        return self.sender.ret

    @property
    def envid(self) -> str | None:
        return self.sender.envid

    @property
    def requiretls(self) -> bool:
        return self.sender.requiretls


@dataclass(slots=True)
class Session:
    """One connection. `helo` is None until the peer has said HELO or EHLO, and again after STARTTLS (RFC 3207 4.2)."""

    peer: Ends
    local: Ends
    helo: str | None = None
    esmtp: bool = False
    tls: Tls | None = None
    login: object | None = None  # the account that `authenticate` put here
    transaction: Transaction | None = None
    facts: object | None = None  # whatever the door wants to remember; it alone knows the type
    rdns: str = ""  # the name of the peer's address, as far as the door asked
    iprev: str = ""  # RFC 8601 2.7.3: whether that name points back; empty: not asked
    errors: int = 0  # 5xx replies since the last message that was kept

    @property
    def protocol(self) -> str:
        """The `with` word of a Received field (RFC 3848, RFC 6531 4.3)."""
        if not self.esmtp:
            return "SMTP"
        kind = "UTF8SMTP" if self.transaction is not None and self.transaction.smtputf8 else "ESMTP"
        return kind + ("S" if self.tls else "") + ("A" if self.login is not None else "")
