"""`posta token`: who may use the admin API for some domains alone. It works on Postgres, whatever else runs."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from services.dev.provision_verbs import AsJson, database_url
from services.dev.status import console
from services.dev.trouble import Trouble

token = typer.Typer(
    name="token",
    help="Tokens of the admin API that are good for some domains alone.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(help="What lists and the log call it.")]


@token.command("create")
def _create(
    name: Name,
    domain: Annotated[list[str], typer.Option("--domain", help="A domain that it is good for; several may be given.")],
    expires: Annotated[str, typer.Option(help="The first day, or the moment, it is good no more: 2027-01-31.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make a token and print it; it is never shown again."""
    end = moment_of(expires) if expires else None
    made, shown = _run(lambda tokens, conn: tokens.create(conn, name, domain, end))
    print(json.dumps({**made._asdict(), "token": shown}, indent=1, default=str) if as_json else shown)


@token.command("list")
def _list(as_json: AsJson = False) -> None:
    """Every token, without what its bearer shows."""
    rows = [each._asdict() for each in _run(lambda tokens, conn: tokens.every(conn))]
    if as_json:
        print(json.dumps(rows, indent=1, default=str))
    elif rows:
        from rich.table import Table

        table = Table(*rows[0], box=None, pad_edge=False)
        for row in rows:
            table.add_row(*map(_cell, row.values()))
        console().print(table)


@token.command("revoke")
def _revoke(name: Name, as_json: AsJson = False) -> None:
    """Let a token be good for nothing, from the next request on."""
    _run(lambda tokens, conn: tokens.revoke(conn, name))
    print(json.dumps({"name": name}) if as_json else f"token {name} is revoked")


def moment_of(given: str) -> datetime:
    """When 2027-01-31 begins, or 2027-01-31T12:00 is; UTC unless it says otherwise. Raises Trouble."""
    try:
        moment = datetime.fromisoformat(given)
    except ValueError:
        raise Trouble(f"--expires: expected a date such as 2027-01-31, got {given!r}", 2) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _run(work: Callable[[Any, Any], Awaitable[Any]]) -> Any:
    # Imported late: the store takes longer to load than most verbs to run.
    from services.core.address import BadAddress
    from services.core.store import tokens
    from services.core.store.accounts import AlreadyExists, NoSuchDomain
    from services.core.store.engine import Store, StoreUnavailable

    async def go() -> Any:
        store = Store(database_url(), pool=1)
        try:
            async with store.begin("dev.tokens") as conn:
                return await work(tokens, conn)
        except (tokens.BadToken, BadAddress) as error:
            raise Trouble(str(error), 2) from None
        except tokens.NoSuchToken as error:
            raise Trouble(f"there is no token {error}") from None
        except AlreadyExists as error:
            raise Trouble(f"{error} exists already: `posta token revoke {error}` makes room") from None
        except NoSuchDomain as error:
            raise Trouble(f"{error} is no domain of ours: `posta domain add {error}` makes it one") from None
        except StoreUnavailable as error:
            raise Trouble(f"the store cannot be reached: {error}") from None
        finally:
            await store.close()

    return asyncio.run(go())


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return "" if value is None else ", ".join(value) if isinstance(value, tuple) else str(value)
