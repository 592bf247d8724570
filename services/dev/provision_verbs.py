"""`posta domain|account|alias|quota`: who may have mail here. They work on Postgres, whatever else runs."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from services.core.size import octets as size_octets
from services.dev import control
from services.dev.home import find
from services.dev.status import console
from services.dev.trouble import Trouble

Row = dict[str, Any]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]
Address = Annotated[str, typer.Argument(help="user@domain")]
Size = Annotated[str, typer.Argument(help="10G, 500M, 1048576 or none.")]
Password = Annotated[str, typer.Option(help="Shown in the process list; better typed at the prompt.")]
FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from the first line of stdin.")]


def _group(name: str, what: str) -> typer.Typer:
    return typer.Typer(name=name, help=what, no_args_is_help=True, rich_markup_mode=None)


domain = _group("domain", "The domains mail is taken for.")
account = _group("account", "The people who have a mailbox.")
alias = _group("alias", "Further addresses, lists, forwards; @domain is that domain's catch-all.")
quota = _group("quota", "How much a mailbox may hold.")


@domain.command("add")
def _domain_add(name: str, as_json: AsJson = False) -> None:
    """Take mail for a domain."""
    _done(lambda p: p.add_domain(name), as_json, f"domain {name} added")


@domain.command("list")
def _domain_list(as_json: AsJson = False) -> None:
    """Every domain."""
    _listed(lambda p: p.domains(), as_json)


@domain.command("remove")
def _domain_remove(name: str, as_json: AsJson = False) -> None:
    """Stop taking mail for a domain that has no addresses left."""
    _done(lambda p: p.remove_domain(name), as_json, f"domain {name} removed")


@account.command("add")
def _account_add(
    address: Address,
    name: Annotated[str, typer.Option(help="The person's name.")] = "",
    size: Annotated[str, typer.Option("--quota", help="10G, 500M or none.")] = "none",
    password: Password = "",
    password_stdin: FromStdin = False,
    as_json: AsJson = False,
) -> None:
    """Make a mailbox with its folders."""
    octets = octets_of(size)
    secret = _password(password, password_stdin)
    _done(lambda p: p.add_account(address, secret, name, octets), as_json, f"account {address} added")


@account.command("list")
def _account_list(
    in_domain: Annotated[str, typer.Option("--domain", help="Of this domain alone.")] = "", as_json: AsJson = False
) -> None:
    """Every account."""
    _listed(lambda p: p.accounts(in_domain), as_json)


@account.command("show")
def _account_show(address: Address, as_json: AsJson = False) -> None:
    """One account."""
    row = provisioned(lambda p: p.account(address))
    _print([row], as_json, single=True)


@account.command("password")
def _account_password(
    address: Address, password: Password = "", password_stdin: FromStdin = False, as_json: AsJson = False
) -> None:
    """Give an account a new password."""
    secret = _password(password, password_stdin)
    _done(lambda p: p.set_password(address, secret), as_json, f"{address} has a new password")


@account.command("suspend")
def _account_suspend(address: Address, as_json: AsJson = False) -> None:
    """Refuse logins and mail, keeping everything."""
    _done(lambda p: p.set_status(address, "suspended"), as_json, f"{address} is suspended")


@account.command("resume")
def _account_resume(address: Address, as_json: AsJson = False) -> None:
    """Allow logins and mail again, and sending where it was paused."""
    _done(lambda p: p.set_status(address, "active"), as_json, f"{address} is active")


@account.command("limit")
def _account_limit(
    address: Address,
    hour: Annotated[int | None, typer.Option(min=0, help="Recipients an hour; 0: no limit.")] = None,
    day: Annotated[int | None, typer.Option(min=0, help="Recipients a day; 0: no limit.")] = None,
    as_json: AsJson = False,
) -> None:
    """Give an account its own limits for sending; what is not named is as set for all."""
    _done(lambda p: p.set_sending(address, hour, day), as_json, f"{address} has its own limits for sending")


@account.command("remove")
def _account_remove(
    address: Address, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False, as_json: AsJson = False
) -> None:
    """Delete an account with all its mail."""
    if not yes:
        typer.confirm(f"Delete {address} with all its mail?", abort=True)
    _done(lambda p: p.remove_account(address), as_json, f"account {address} removed")


@account.command("restore")
def _account_restore(
    address: Address,
    source: Annotated[str, typer.Option("--from", help="postgresql://user:password@host:port/database")],
    into: Annotated[str, typer.Option(help="A folder to put its folders into; each into its own otherwise.")] = "",
    since: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Only what was received then or later.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Bring back what a mailbox held in a store that was restored beside this one, and holds no more."""
    then = since and since.replace(tzinfo=UTC)
    row = provisioned(lambda p: p.restore_account(address, source, into, then))
    if as_json:
        print(json.dumps(row))
        return
    for path, count in row["folders"].items():
        print(f"{path}: {count}")
    print(f"{row['restored']} messages restored")


@alias.command("add")
def _alias_add(
    address: Address, target: Annotated[str, typer.Argument(help="Where it goes.")], as_json: AsJson = False
) -> None:
    """Let mail for `address` go to `target` as well."""
    _done(lambda p: p.add_alias(address, target), as_json, f"{address} goes to {target}")


@alias.command("list")
def _alias_list(
    in_domain: Annotated[str, typer.Option("--domain", help="Of this domain alone.")] = "", as_json: AsJson = False
) -> None:
    """Every alias with its target."""
    _listed(lambda p: p.aliases(in_domain), as_json)


@alias.command("remove")
def _alias_remove(
    address: Address, target: Annotated[str, typer.Argument(help="This target alone.")] = "", as_json: AsJson = False
) -> None:
    """Remove an alias, or one target of it."""
    _done(lambda p: p.remove_alias(address, target), as_json, f"alias {address} removed")


@quota.command("set")
def _quota_set(address: Address, size: Size, as_json: AsJson = False) -> None:
    """Limit what a mailbox may hold."""
    octets = octets_of(size)
    _done(lambda p: p.set_quota(address, octets), as_json, f"quota of {address}: {size}")


@quota.command("show")
def _quota_show(address: Address, as_json: AsJson = False) -> None:
    """What a mailbox may hold and holds."""
    row = provisioned(lambda p: p.account(address))
    _print([{key: row[key] for key in ("address", "quota_octets", "used_octets")}], as_json, single=True)


def octets_of(size: str) -> int | None:
    """How many octets "10G" or "500M" are (powers of 1024); None for "none". Raises Trouble for anything else."""
    try:
        return size_octets(size)
    except ValueError as error:
        raise Trouble(str(error), 2) from None


def database_url() -> str:
    """POSTA_DATABASE_URL, or that of the platform running in this home. Raises Trouble where neither is."""
    return os.environ.get("POSTA_DATABASE_URL") or str(control.ask(find(os.environ), "status")["urls"]["database"])


def settings_of(ours: tuple[str, ...]) -> Any:
    """The settings whose keys begin so: as this shell's environment has them, else as the running platform does.

    Raises Trouble.
    """
    # Imported late: a verb that needs none of it starts sooner.
    from services.core.settings import BadSettings, read

    try:
        return read({name: value for name, value in _given().items() if name.startswith(ours)})
    except BadSettings as error:
        raise Trouble(str(error), 2) from None


def _given() -> dict[str, str]:
    home = find(os.environ)
    # What lies in a database that this shell names is not the running platform's.
    if os.environ.get("POSTA_DATABASE_URL") or not home.is_held():
        return dict(os.environ)
    return control.ask(home, "environment") | os.environ


def _password(given: str, from_stdin: bool) -> str:
    if given and from_stdin:
        raise Trouble("--password and --password-stdin exclude each other", 2)
    if from_stdin:
        given = sys.stdin.readline().rstrip("\r\n")
    elif not given:
        if not sys.stdin.isatty():
            raise Trouble("a password is needed: --password-stdin, --password or a terminal to ask at", 2)
        given = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    if not given:
        raise Trouble("the password is empty", 2)
    return given


def provisioned(work: Callable[[Any], Awaitable[Any]]) -> Any:
    """What `work` makes of the platform's `Provisioning`. Raises Trouble."""
    # Imported late: the store takes longer to load than most verbs to run.
    from services.dev.provision import Provisioning

    async def go() -> Any:
        async with Provisioning.at(database_url(), nats_url()) as provisioning:
            return await work(provisioning)

    return asyncio.run(go())


def nats_url() -> str:
    """Where caches are told; empty when nobody need be: without a running platform there are none to tell."""
    if given := os.environ.get("POSTA_NATS_URL"):
        return given
    home = find(os.environ)
    return str(control.ask(home, "status")["urls"]["nats"]) if home.is_held() else ""


def _done(work: Callable[[Any], Awaitable[Row]], as_json: bool, line: str) -> None:
    row = provisioned(work)
    print(json.dumps(row, default=str) if as_json else line)


def _listed(work: Callable[[Any], Awaitable[list[Row]]], as_json: bool) -> None:
    _print(provisioned(work), as_json)


def _print(rows: list[Row], as_json: bool, single: bool = False) -> None:
    if as_json:
        print(json.dumps(rows[0] if single else rows, indent=1, default=str))
    elif single:
        width = max(map(len, rows[0]))
        for key, value in rows[0].items():
            print(f"{key:{width}}  {_cell(value)}")
    elif rows:
        from rich.table import Table
        from rich.text import Text

        table = Table(*rows[0], box=None, pad_edge=False)
        for row in rows:
            table.add_row(*(Text(_cell(value)) for value in row.values()))
        console().print(table)


def _cell(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
