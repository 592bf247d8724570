"""What the admin API takes and gives, as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from services.core.store import accounts, credentials, quarantine

OCTETS_MAX = 1 << 53  # what every JSON reader holds exactly (RFC 8259 6)


def plain(longest: int) -> Any:
    """A text of at most so many characters, without the NUL that Postgres cannot hold."""
    return Field(max_length=longest, pattern=r"^[^\x00]*$")


Address = Annotated[str, plain(320)]
Octets = Annotated[int | None, Field(ge=0, le=OCTETS_MAX, description="null: no limit")]
Secret = Annotated[SecretStr, Field(max_length=1024)]


class Given(BaseModel):
    """What an operator sends."""

    # A misspelt field must not be taken for one that was left out.
    model_config = ConfigDict(extra="forbid")


class Domain(Given):
    """A domain that is ours."""

    domain: Address


class NewAccount(Given):
    """An account to be made. Without a password nobody can log in until one is set."""

    address: Address
    display_name: Annotated[str, plain(256)] = ""
    password: Secret | None = None
    quota_octets: Octets = None


class AccountChange(Given):
    """What is not given stays."""

    display_name: Annotated[str, plain(256)] | None = None
    suspended: bool | None = None
    sending: Literal["active"] | None = Field(default=None, description="active: let a paused account send again.")


class SendingLimits(Given):
    """Recipients an hour and a day; null: as set for all, 0: no limit."""

    send_hour: Annotated[int | None, Field(ge=0, lt=1 << 31)]
    send_day: Annotated[int | None, Field(ge=0, lt=1 << 31)]


class Account(BaseModel):
    """An account as it is."""

    address: str
    display_name: str
    status: str
    quota_octets: int | None
    used_octets: int
    used_items: int
    sending: str
    send_hour: int | None
    send_day: int | None
    created_at: datetime

    @classmethod
    def of(cls, row: accounts.Account) -> Account:
        """From the store's row."""
        return cls(**{name: getattr(row, name) for name in cls.model_fields})


class Password(Given):
    """A password to be set."""

    password: Secret


class Quota(Given):
    """How much an account may hold."""

    quota_octets: Octets


class NewAppPassword(Given):
    """An app password to be made. Without scopes it is good for every protocol."""

    label: Annotated[str, plain(256)] = ""
    scopes: list[Literal["imap", "pop", "submission", "sync"]] = []


class AppPassword(BaseModel):
    """An app password, which nobody can see again."""

    number: int
    label: str
    scopes: list[str]
    created_at: datetime

    @classmethod
    def of(cls, row: credentials.Credential) -> AppPassword:
        """From the store's row."""
        return cls(number=row.credential_id, label=row.label, scopes=list(row.scopes), created_at=row.created_at)


class ShownAppPassword(AppPassword):
    """An app password when it is made."""

    password: str


class Alias(Given):
    """An alias and where it leads; `@domain` is that domain's catch-all."""

    address: Address
    targets: Annotated[list[Address], Field(min_length=1, max_length=1000)]


class HeldPolicy(BaseModel):
    """What a domain does about held mail: what the sender hears, whether it is told at once, whether recipients are."""

    on_held: Literal["refuse", "accept"]
    notify_sender: bool
    digest: bool


class HeldPolicyChange(Given):
    """What is not given stays."""

    on_held: Literal["refuse", "accept"] | None = None
    notify_sender: bool | None = None
    digest: bool | None = None


class HeldRecipient(BaseModel):
    """One recipient of a held message."""

    address: str
    state: str
    told_at: datetime | None
    settled_at: datetime | None


class HeldMessage(BaseModel):
    """A message in quarantine, without its octets."""

    spool_id: str
    state: str
    sender: str
    from_text: str
    subject: str
    message_id: str
    size: int
    door: str
    client: str
    accepted: bool
    kind: str
    reason: str
    score: float
    findings: list[dict[str, Any]]
    received_at: datetime
    expires_at: datetime
    recipients: list[HeldRecipient]

    @classmethod
    def of(cls, row: quarantine.Shown) -> HeldMessage:
        """From the store's row."""
        told = [
            HeldRecipient(**{name: getattr(each, name) for name in HeldRecipient.model_fields})
            for each in row.recipients
        ]
        return cls(**{name: getattr(row, name) for name in cls.model_fields if name != "recipients"}, recipients=told)


class Settled(BaseModel):
    """What was done, and for whom."""

    spool_id: str
    recipients: list[str]
    released_as: str | None = None
