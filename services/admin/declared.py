"""What an operator declares, as a value: domains, accounts, aliases and DKIM keys from YAML or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, model_validator

from services.core import address as addresses
from services.core import size


class BadDeclaration(ValueError):
    """One line for an operator: where in the document, and what was expected there."""


def _domain(value: object) -> object:
    return addresses.domain(value) if isinstance(value, str) else value


def _account(value: object) -> object:
    return addresses.parse(value).key if isinstance(value, str) else value


def _alias(value: object) -> object:
    if isinstance(value, str) and value.startswith("@"):
        return "@" + addresses.domain(value[1:])
    return _account(value)


def _octets(value: object) -> object:
    return value if isinstance(value, int) else size.octets(str(value))


_Limit: TypeAlias = Annotated[int, Field(ge=0)] | Literal["kept"] | None


class _Part(BaseModel):
    # Input is hidden because pydantic would otherwise print a password in its message.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Policy(_Part):
    """What a domain does about mail that is held for its people. What is None is not declared and left as it is."""

    held_mail: Literal["refuse", "accept"] | None = Field(default=None, alias="heldMail")
    """What the sender hears: 550 "held for review", or 250."""
    notify_sender: bool | None = Field(default=None, alias="notifySender")
    """One who heard 250 is told at once, and not only at the end."""
    digest: bool | None = None
    """The recipients are told by mail."""


class Domain(_Part):
    """A domain of ours; without a policy its name alone will do."""

    domain: Annotated[str, BeforeValidator(_domain)]
    policy: Policy = Policy()


def _named(value: object) -> object:
    return {"domain": value} if isinstance(value, str) else value


class Account(_Part):
    """A mailbox. What is None is not declared and left as it is."""

    address: Annotated[str, BeforeValidator(_account)]
    name: str | None = None
    quota: Annotated[int | Literal["kept"] | None, BeforeValidator(_octets)] = Field(
        default="kept", validate_default=False
    )
    suspended: bool | None = None
    recipients_per_hour: _Limit = Field(default="kept", alias="recipientsPerHour")
    """It may send to so many; None: as set for all, 0: no limit."""
    recipients_per_day: _Limit = Field(default="kept", alias="recipientsPerDay")
    password: SecretStr | None = None
    password_file: Path | None = Field(default=None, alias="passwordFile")

    @model_validator(mode="after")
    def _one_password(self) -> Account:
        if self.password is not None and self.password_file is not None:
            raise ValueError("password and passwordFile exclude each other")
        return self

    def secret(self) -> str | None:
        """The password that is declared. Raises BadDeclaration when its file cannot be read."""
        if self.password_file is None:
            return None if self.password is None else self.password.get_secret_value()
        try:
            return self.password_file.read_text("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise BadDeclaration(f"password of {self.address}: {error}") from None


class Alias(_Part):
    """A further address, a list, a forward, or with "@domain" that domain's catch-all."""

    address: Annotated[str, BeforeValidator(_alias)]
    targets: Annotated[tuple[str, ...], Field(min_length=1)]


class DkimKey(_Part):
    """The private key that a domain's mail is signed with under a selector, once it is activated."""

    domain: Annotated[str, BeforeValidator(_domain)]
    selector: str
    key_file: Path = Field(alias="keyFile")

    def pem(self) -> str:
        """The key. Raises BadDeclaration when its file cannot be read."""
        try:
            return self.key_file.read_text("ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise BadDeclaration(f"key {self.selector} of {self.domain}: {error}") from None


class Declaration(_Part):
    """All that is declared."""

    domains: tuple[Annotated[Domain, BeforeValidator(_named)], ...] = ()
    accounts: tuple[Account, ...] = ()
    aliases: tuple[Alias, ...] = ()
    dkim: tuple[DkimKey, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The domains, each once; it may stand by its name alone beside where its policy is."""
        return tuple(dict.fromkeys(each.domain for each in self.domains))

    @model_validator(mode="after")
    def _once(self) -> Declaration:
        for what, names in (
            ("policy of", [each.domain for each in self.domains if each.policy != Policy()]),
            ("account", [account.address for account in self.accounts]),
            ("alias", [alias.address for alias in self.aliases]),
        ):
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise ValueError(f"{what} {twice} is declared twice")
        return self


def read(text: str) -> Declaration:
    """The declaration in YAML or JSON, or under its `provision` as in the chart's values. Raises BadDeclaration."""
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadDeclaration(f"expected YAML or JSON: {' '.join(str(error).split())}") from None
    if isinstance(tree, dict) and isinstance(tree.get("provision"), dict):
        tree = tree["provision"]
    try:
        return Declaration.model_validate(tree or {})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "document"
        raise BadDeclaration(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None


def write(
    domains: Sequence[str | dict[str, object]],
    accounts: Sequence[dict[str, object]],
    aliases: Sequence[dict[str, object]],
) -> str:
    """The same as YAML that `read` reads, and that `helm install --values` takes."""
    tree = {"provision": {"domains": list(domains), "accounts": list(accounts), "aliases": list(aliases)}}
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
