"""`posta route`: mail that does not go by MX. It works on Postgres; relays read the rules anew when they are told."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer

from services.dev.home import find
from services.dev.provision_verbs import AsJson, database_url, nats_url, settings_of
from services.dev.status import console
from services.dev.trouble import Trouble

route = typer.Typer(
    name="route",
    help="Smarthosts: mail that does not go by MX. Of several rules the most specific one counts.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Sender = Annotated[str, typer.Option(help="For mail of this address or @domain; nothing: of everybody.")]
Recipient = Annotated[str, typer.Option(help="For mail to this domain, or .domain for those below; nothing: to all.")]


@route.command("add")
def _add(
    host: Annotated[str, typer.Argument(help="The smarthost; mx for mail that does go by MX, against a wider rule.")],
    sender: Sender = "",
    recipient: Recipient = "",
    port: Annotated[int, typer.Option(help="The smarthost's port.")] = 587,
    implicit_tls: Annotated[bool, typer.Option("--implicit-tls", help="TLS from the start, as on port 465.")] = False,
    username: Annotated[str, typer.Option(help="To log in there; the password is read from the terminal.")] = "",
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from the first line of stdin.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Send mail through a smarthost; a rule for the same mail is replaced."""
    password = _password(password_stdin) if username else ""

    async def add(routes: Any, conn: Any) -> Any:
        made = routes.rule(
            "" if host == "mx" else host,
            port=port,
            sender=sender,
            recipient=recipient,
            implicit_tls=implicit_tls,
            username=username,
            password=password,
        )
        await routes.put(conn, made, _seal())
        return made

    made = _run(add)
    print(json.dumps(_row(made)) if as_json else f"mail {_of(made)} goes {_to(made)}")


@route.command("list")
def _list(as_json: AsJson = False) -> None:
    """Every rule, without the passwords."""
    rows = [_row(each) for each in _run(lambda routes, conn: routes.every(conn), tell=False)]
    if as_json:
        print(json.dumps(rows, indent=1))
    elif rows:
        from rich.table import Table
        from rich.text import Text

        table = Table(*rows[0], box=None, pad_edge=False)
        for row in rows:
            table.add_row(*(Text(str(value)) for value in row.values()))
        console().print(table)


@route.command("remove")
def _remove(sender: Sender = "", recipient: Recipient = "", as_json: AsJson = False) -> None:
    """Forget the rule for this mail."""
    _run(lambda routes, conn: routes.remove(conn, sender=sender, recipient=recipient))
    row = {"sender": sender, "recipient": recipient}
    print(json.dumps(row) if as_json else f"no rule any more for mail of {sender or 'all'} to {recipient or 'all'}")


@route.command("seal")
def _reseal(as_json: AsJson = False) -> None:
    """Seal the passwords by the newest secret: those of seal.former, and those in the clear."""
    count = _run(lambda routes, conn: routes.reseal(conn, _seal()))
    print(json.dumps({"routes": count}) if as_json else f"{count} {'password' if count == 1 else 'passwords'} sealed")


def _seal() -> Any:
    """The seal of the services: as this shell's settings have it, or made by the platform that runs in this home."""
    # Imported late: most verbs here do without.
    from pydantic import SecretStr

    from services.core.seal import Seal

    said, home = settings_of(("POSTA_CONFIG", "POSTA_SEAL_")).seal, find(os.environ)
    made = home.is_held() and "POSTA_SEAL_SECRET" not in os.environ
    return Seal(SecretStr(home.secret("seal-secret")) if made else said.secret, said.former)


def _password(from_stdin: bool) -> str:
    if from_stdin:
        given = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        given = typer.prompt("Password", hide_input=True)
    else:
        raise Trouble("a password is needed: --password-stdin, or a terminal to ask at", 2)
    if not given:
        raise Trouble("the password is empty", 2)
    return str(given)


def _run(work: Callable[[Any, Any], Awaitable[Any]], *, tell: bool = True) -> Any:
    # Imported late: the store takes longer to load than most verbs to run.
    from services.core import directory
    from services.core.seal import NoSeal, Unopened
    from services.core.store import routes
    from services.core.store.engine import Store, StoreUnavailable
    from services.dev.quiet import bus_at

    async def go() -> Any:
        store = Store(database_url(), pool=1)
        try:
            async with store.begin("dev.routes") as conn:
                done = await work(routes, conn)
            if tell and (nats := nats_url()):
                async with bus_at(nats) as bus:
                    await directory.announce(bus)
        except routes.BadRule as error:
            raise Trouble(str(error), 2) from None
        except (routes.NoSuchRule, NoSeal, Unopened) as error:
            raise Trouble(str(error)) from None
        except StoreUnavailable as error:
            raise Trouble(f"the store cannot be reached: {error}") from None
        finally:
            await store.close()
        return done

    return asyncio.run(go())


def _row(rule: Any) -> dict[str, Any]:
    row: dict[str, Any] = rule._asdict()
    del row["password"]
    return row


def _of(rule: Any) -> str:
    return f"of {rule.sender or 'everybody'} to {rule.recipient or 'all other domains'}"


def _to(rule: Any) -> str:
    return f"through {rule.host}:{rule.port}" if rule.host else "by MX"
