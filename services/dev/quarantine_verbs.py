"""`posta quarantine`: what the filters hold for review, and what becomes of it."""

import asyncio
import getpass
import json
import re
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer

from services.dev.provision_verbs import AsJson, database_url, nats_url
from services.dev.status import console
from services.dev.trouble import Trouble

Row = dict[str, Any]
Id = Annotated[str, typer.Argument(help="The id in the reply, the digest or `posta quarantine list`.")]

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}

quarantine = typer.Typer(
    name="quarantine", help="Mail that is held for review.", no_args_is_help=True, rich_markup_mode=None
)


@quarantine.command("list")
def _list(
    domain: Annotated[str, typer.Option(help="For recipients of this domain.")] = "",
    recipient: Annotated[str, typer.Option(help="For this address.")] = "",
    sender: Annotated[str, typer.Option(help="From this address or domain.")] = "",
    age: Annotated[str, typer.Option(help="Held for at least 30m, 12h, 7d.")] = "0s",
    settled: Annotated[bool, typer.Option("--all", help="Also what was released, deleted or expired lately.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 100,
    as_json: AsJson = False,
) -> None:
    """What is held, the newest first."""
    wanted = {"domain": domain, "recipient": recipient, "sender": sender, "settled": settled, "limit": limit}
    rows = _run(lambda q: q.find(age_s=seconds_of(age), **wanted))
    if as_json:
        print(json.dumps(rows, indent=1))
    elif rows:
        _table(rows)


@quarantine.command("show")
def _show(
    spool_id: Id,
    eml: Annotated[bool, typer.Option("--eml", help="Write the whole message to stdout, as it would arrive.")] = False,
    as_json: AsJson = False,
) -> None:
    """One message: why it is held, what was found, its header."""
    row, octets = _run(lambda q: q.get(spool_id))
    if eml:
        sys.stdout.buffer.write(octets)
        return
    header = octets.partition(b"\r\n\r\n")[0].decode("utf-8", "replace").replace("\r\n", "\n")
    if as_json:
        print(json.dumps({**row, "header": header}, indent=1))
        return
    findings, recipients = row.pop("findings"), row.pop("recipients")
    for key, value in row.items():
        print(f"{key:12}{_plain(str(value))}")
    for each in recipients:
        print(f"{'for':12}{_plain(each['address'])} ({each['state']})")
    for each in findings:
        print(_plain(f"{'found':12}{each['symbol']} by {each['engine']}, {each['score']:g}  {each['detail']}"))
    print("\n" + "\n".join(map(_plain, header.split("\n"))))


@quarantine.command("release")
def _release(spool_ids: Annotated[list[str], typer.Argument(help="Ids.")], as_json: AsJson = False) -> None:
    """Deliver messages to whom they are held for, into the INBOX, and teach the engines that they are no spam."""
    _settle(spool_ids, lambda q, each: q.release(each), "released", as_json)


@quarantine.command("delete")
def _delete(spool_ids: Annotated[list[str], typer.Argument(help="Ids.")], as_json: AsJson = False) -> None:
    """Give messages up; senders who were told 250 are told that."""
    _settle(spool_ids, lambda q, each: q.delete(each), "deleted", as_json)


@quarantine.command("train")
def _train(spool_ids: Annotated[list[str], typer.Argument(help="Ids.")], as_json: AsJson = False) -> None:
    """Teach the engines that messages are spam, and delete them."""
    _settle(spool_ids, lambda q, each: q.train(each), "trained as spam and deleted", as_json)


@quarantine.command("policy")
def _policy(
    domain: Annotated[str, typer.Argument(help="One of our domains.")],
    on_held: Annotated[str, typer.Option(help="What the sender hears: refuse (550) or accept (250).")] = "",
    notify_sender: Annotated[
        bool | None, typer.Option("--notify-sender/--no-notify-sender", help="Tell who heard 250 at once.")
    ] = None,
    digest: Annotated[bool | None, typer.Option("--digest/--no-digest", help="Tell recipients daily.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a domain does about held mail, or change it."""
    if on_held not in ("", "refuse", "accept"):
        raise Trouble(f"--on-held: expected refuse or accept, got {on_held!r}", 2)
    row = _run(lambda q: q.policy(domain, on_held=on_held or None, notify_sender=notify_sender, digest=digest))
    if as_json:
        print(json.dumps(row, indent=1))
        return
    for key, value in row.items():
        print(f"{key:15}{value}")


def seconds_of(age: str) -> float:
    """How many seconds "30m", "12h" or "7d" are. Raises Trouble for anything else."""
    found = re.fullmatch(r"(\d{1,9})([smhdw])", age.strip().casefold(), re.ASCII)
    if found is None:
        raise Trouble(f"expected an age such as 30m, 12h or 7d, got {age!r}", 2)
    return float(int(found[1]) * _SECONDS[found[2]])


def _run(work: Callable[[Any], Awaitable[Any]]) -> Any:
    # Imported late: the store takes longer to load than most verbs to run.
    from services.dev.quarantine import Quarantine

    async def go() -> Any:
        async with Quarantine.at(database_url(), nats_url(), f"{getpass.getuser()} by posta") as held:
            return await work(held)

    return asyncio.run(go())


def _settle(spool_ids: list[str], verb: Callable[[Any, str], Awaitable[Row]], done: str, as_json: bool) -> None:
    async def every(held: Any) -> list[Row]:
        return [await verb(held, each) for each in spool_ids]

    rows: list[Row] = _run(every)
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        who = ", ".join(row["recipients"])
        alias = f" as {row['released_as']}" if row.get("released_as") else ""
        print(f"{row['spool_id']} {done}{alias} for {who}" if who else f"{row['spool_id']} was settled before")


def _table(rows: list[Row]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("id", "since", "state", "why", "score", "from", "for", "subject", box=None, pad_edge=False)
    for row in rows:
        people = ", ".join(each["address"] for each in row["recipients"])
        why = f"{row['kind']}: {row['reason']}"
        cells = (row["spool_id"], row["received_at"][:16], row["state"], why, f"{row['score']:.1f}")
        # As text: what a sender chose may hold what rich takes for markup.
        table.add_row(*(Text(_plain(each)) for each in (*cells, row["from"] or row["sender"], people, row["subject"])))
    console().print(table)


def _plain(text: str) -> str:
    """A stranger's words without what a terminal would obey."""
    return "".join(c if c.isprintable() or c == "\t" else "?" for c in text)
