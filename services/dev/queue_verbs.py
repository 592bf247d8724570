"""`posta queue`: mail to other domains that is on its way. It works on Postgres; relays are told on the bus."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.dev.provision_verbs import AsJson, database_url, nats_url
from services.dev.status import console
from services.dev.trouble import Trouble

if TYPE_CHECKING:
    from services.core.store.queued import Queued, Selection

queue = typer.Typer(
    name="queue", help="Mail to other domains that is on its way.", no_args_is_help=True, rich_markup_mode=None
)

Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Spool ids, as `posta queue list` shows.")]
Domain = Annotated[str, typer.Option(help="The recipient's domain.")]
Sender = Annotated[str, typer.Option(help="An address, @domain, or <> for notices.")]
Age = Annotated[str, typer.Option(help="At least so old: 90s, 30m, 4h, 2d.")]
All = Annotated[bool, typer.Option("--all", help="The whole queue.")]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_PAGE = 1000


@queue.command("list")
def _list(
    domain: Domain = "",
    sender: Sender = "",
    age: Age = "",
    limit: Annotated[int, typer.Option(min=1, help="So many recipients at most.")] = 1000,
    as_json: AsJson = False,
) -> None:
    """Every recipient, oldest messages first."""
    selection = selected((), domain, sender, age, everything=True)
    found = _run(lambda outbound: _pages(outbound, selection, limit))
    if as_json:
        print(json.dumps([_row(one) for one in found], indent=1))
    elif found:
        _show(found)


@queue.command("show")
def _one(spool_id: Annotated[str, typer.Argument(help="Spool id.")], as_json: AsJson = False) -> None:
    """One message: its recipients that wait for other domains, and its header; exit code 1 when there is none."""

    selection = selected([spool_id], "", "", "", everything=False)

    async def look(outbound: Any) -> "tuple[list[Queued], str]":
        found = await outbound.entries(selection, limit=_PAGE)
        return found, await outbound.header(spool_id)

    found, header = _run(look)
    if as_json:
        print(json.dumps({"recipients": [_row(one) for one in found], "header": header}, indent=1))
    elif found:
        _show(found)
        print(f"\n{header}")
    if not found:
        raise Trouble(f"{spool_id} has no recipients in the queue")


def _verb(name: str, help: str, line: str, change: "Callable[[Any, Selection], Awaitable[int]]") -> None:
    @queue.command(name, help=help)
    def run(
        ids: Ids = None, domain: Domain = "", sender: Sender = "", age: Age = "", everything: All = False,
        as_json: AsJson = False,
    ) -> None:  # fmt: skip
        selection = selected(ids or (), domain, sender, age, everything)
        _done(lambda outbound: change(outbound, selection), line, as_json)


_verb("retry", "Attempt recipients now, whatever their schedule says.", "attempted again now", lambda o, s: o.retry(s))
_verb("hold", "Attempt them no more until they are released.", "held", lambda o, s: o.hold(s))
_verb("release", "Attempt held ones now.", "released", lambda o, s: o.release(s))


@queue.command("drop")
def _drop(
    ids: Ids = None, domain: Domain = "", sender: Sender = "", age: Age = "", everything: All = False,
    bounce: Annotated[bool, typer.Option("--bounce", help="Tell the senders, as of any failure.")] = False,
    reason: Annotated[str, typer.Option(help="What they are told.")] = "Given up by the postmaster",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Give recipients up. Nobody is told, except with --bounce; what is being sent just now is left alone."""
    selection = selected(ids or (), domain, sender, age, everything)
    if not yes:
        count = _run(lambda outbound: outbound.count(selection))
        telling = "telling their senders" if bounce else "telling nobody"
        typer.confirm(f"Give up {count} recipients, {telling}?", abort=True)
    if bounce:
        _done(lambda outbound: outbound.bounce(selection, reason), "given up, their senders will be told", as_json)
    else:
        _done(lambda outbound: outbound.drop(selection), "dropped, nobody is told", as_json)


def selected(ids: list[str] | tuple[()], domain: str, sender: str, age: str, everything: bool) -> "Selection":
    """What the words mean. Raises Trouble where they mean nothing, so that nobody changes all by a typing error."""
    # Imported late: the store takes longer to load than most verbs to run.
    from services.core.address import BadAddress
    from services.core.store.queued import meant

    if not (ids or domain or sender or age or everything):
        raise Trouble("which ones? Spool ids, --domain, --sender, --age or --all", 2)
    try:
        return meant(ids, domain, sender, seconds_of(age) if age else 0)
    except BadAddress as error:
        raise Trouble(f"--domain: {error}", 2) from None


def seconds_of(age: str) -> float:
    """How many seconds "90s", "30m", "4h" or "2d" are. Raises Trouble for anything else."""
    found = re.fullmatch(r"(\d{1,9})([smhd])", age.strip().lower(), re.ASCII)
    if found is None:
        raise Trouble(f"expected an age such as 90s, 30m, 4h or 2d, got {age!r}", 2)
    return float(int(found[1]) * _UNITS[found[2]])


async def _pages(outbound: Any, selection: "Selection", limit: int) -> "list[Queued]":
    found: list[Queued] = []
    while len(found) < limit:
        after = (found[-1].spool_id, found[-1].n) if found else ("", -1)
        page = await outbound.entries(selection, limit=min(_PAGE, limit - len(found)), after=after)
        found += page
        if len(page) < _PAGE:
            break
    return found


def _run(work: Callable[[Any], Awaitable[Any]]) -> Any:
    from services.core.outbound import Outbound
    from services.core.store.engine import Store, StoreUnavailable
    from services.dev.quiet import bus_at

    async def go() -> Any:
        async with AsyncExitStack() as stack:
            store = Store(database_url(), pool=1)
            stack.push_async_callback(store.close)
            nats = nats_url()
            bus = await stack.enter_async_context(bus_at(nats)) if nats else None
            try:
                return await work(Outbound(store, bus, service="posta"))
            except StoreUnavailable as error:
                raise Trouble(f"the store cannot be reached: {error}") from None

    return asyncio.run(go())


def _done(work: Callable[[Any], Awaitable[int]], line: str, as_json: bool) -> None:
    count = _run(work)
    print(
        json.dumps({"recipients": count})
        if as_json
        else f"{count} {'recipient' if count == 1 else 'recipients'} {line}"
    )


def _row(one: "Queued") -> dict[str, Any]:
    row = one._asdict()
    for moment in ("received_at", "due_at"):
        row[moment] = row[moment].isoformat(timespec="seconds")
    return row


def _show(found: "list[Queued]") -> None:
    from rich.table import Table
    from rich.text import Text

    now = datetime.now(UTC)
    table = Table("id", "age", "state", "tries", "next", "from", "to", "last reply", box=None, pad_edge=False)
    for one in found:
        waits = one.state == "waiting"
        cells = (
            *(one.spool_id, _span((now - one.received_at).total_seconds()), one.state, str(one.attempts)),
            _span((one.due_at - now).total_seconds()) if waits else "",
            *(one.sender or "<>", one.address),
            " ".join(filter(None, (one.last_reply, one.last_host and f"({one.last_host})"))),
        )
        # As text: what a remote said may hold what rich takes for markup.
        table.add_row(*(Text(cell) for cell in cells))
    console().print(table)


def _span(seconds: float) -> str:
    """
    >>> [_span(s) for s in (5, 300, 7200, 200_000)]
    ['5s', '5m', '2h', '2d']
    """
    for unit in ("d", "h", "m"):
        if seconds >= 2 * _UNITS[unit] or (unit != "d" and seconds >= _UNITS[unit]):
            return f"{seconds // _UNITS[unit]:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"
