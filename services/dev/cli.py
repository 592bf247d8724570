"""The `posta` verbs. Here they are only registered; each is done in a room of its own."""

import asyncio
import os
import sys
from collections.abc import Iterable
from typing import Annotated, NoReturn

import typer

from services.dev import control, neighbour
from services.dev import up as starting
from services.dev.dkim_verbs import dkim
from services.dev.home import Home, find
from services.dev.plan import Plan, base_of
from services.dev.provision_document import apply, export
from services.dev.provision_verbs import account, alias, domain, quota
from services.dev.quarantine_verbs import quarantine
from services.dev.queue_verbs import queue
from services.dev.route_verbs import route
from services.dev.status import show, status
from services.dev.token_verbs import token
from services.dev.trouble import Trouble

app = typer.Typer(
    help="Posta, a mail platform. `posta up` runs all of it on this machine.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
domain.command("dkim")(dkim)
for group in (domain, account, alias, quota, quarantine, queue, route, token):
    app.add_typer(group)
app.command("apply")(apply)
app.command("export")(export)

AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]
INTERRUPTED = 130


@app.command("up")
def _up(
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when it is ready; `posta down` stops it.")
    ] = False,
    only: Annotated[str, typer.Option(help="Run these services alone (comma-separated).")] = "",
    without: Annotated[str, typer.Option(help="Run all services but these (comma-separated).")] = "",
    replicas: Annotated[
        str, typer.Option(help="Run several processes of a service behind its ports: imap=2,delivery=2.")
    ] = "",
    demo: Annotated[
        bool | None,
        typer.Option("--demo/--no-demo", help="Send the demo message (not sent by default with --detach)."),
    ] = None,
    accounts: Annotated[bool, typer.Option(help="Make the demo accounts alice and bob.")] = True,
    beside: Annotated[
        bool | None,
        typer.Option(
            "--with-neighbour/--without-neighbour",
            help="Then mail with remote.test, a second platform that runs for a moment (by default with the message).",
        ),
    ] = None,
    engines: Annotated[
        bool, typer.Option("--with-engines/--without-engines", help="Run clamd and rspamd, where they are installed.")
    ] = True,
) -> None:
    """Start the embedded servers and every service, send a demo message, stay until Ctrl-C."""
    if not engines:
        os.environ["POSTA_ENGINES"] = "none"
    home, plan = find(os.environ), Plan(base_of(os.environ)).chosen(only, without).scaled(replicas)
    show = _shown(plan, detach, demo, accounts, beside)
    if not detach:
        starting.foreground(home, plan, os.environ, show)
        return
    words = ("up", "--only", only, "--without", without, "--replicas", replicas)
    flags = ("--demo" if show.message else "--no-demo", "--accounts" if accounts else "--no-accounts")
    also = "--with-neighbour" if show.neighbour else "--without-neighbour"
    starting.detached(home, (*words, *flags, also), os.environ | {"POSTA_HOME": str(home.root)})
    state = status(home)
    where = ", ".join([f"pid {state['pid']}", *(f"{name} {port}" for name, port in state["doors"].items())])
    print(f"posta is up in {home.root} ({where}); `posta down` stops it")


def _shown(plan: Plan, detach: bool, demo: bool | None, accounts: bool, beside: bool | None) -> starting.Show:
    """What is shown of what was asked for. Raises Trouble where a neighbour was, and cannot be."""
    message = accounts and (not detach if demo is None else demo)
    hindered = neighbour.missing(plan, os.environ) or ("" if accounts else "a neighbour writes to the demo accounts")
    if beside and hindered:
        raise Trouble(hindered)
    return starting.Show(accounts, message, not hindered and (message if beside is None else beside))


@app.command("down")
def _down() -> None:
    """Stop the platform, detached or not."""
    home = find(os.environ)
    print(f"posta (pid {starting.down(home)}) is down in {home.root}")


@app.command("wipe")
def _wipe(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Delete the home of a stopped platform with all mail in it."""
    from services.dev.place import wipe

    home = find(os.environ)
    if home.is_held():
        raise Trouble(f"posta is running in {home.root}: `posta down` stops it")
    if not (home.run).is_dir():
        raise Trouble(f"{home.root} is not a home of posta")
    if not yes:
        typer.confirm(f"Delete {home.root} with all mail in it?", abort=True)
    for each in (neighbour.home_of(home), home):
        if each.root.is_dir():
            wipe(each)


@app.command("status")
def _status(as_json: AsJson = False) -> None:
    """Show every service's state, pid and ports; exit code 3 when posta is not running."""
    state = status(find(os.environ))
    show(state, as_json)
    if not state["running"]:
        raise typer.Exit(3)


@app.command("stop")
def _stop(service: Annotated[str, typer.Argument(help="As in `posta status`.")]) -> None:
    """Stop one service of the running platform, or one process of it."""
    control.ask(find(os.environ), "stop", service=service)
    print(f"{service} is stopped")


@app.command("start")
def _start(service: Annotated[str, typer.Argument(help="As in `posta status`.")]) -> None:
    """Start one service again, or one process of it, and wait until it is ready."""
    control.ask(find(os.environ), "start", 90.0, service=service)
    print(f"{service} is ready")


@app.command("restart")
def _restart(services: Annotated[list[str], typer.Argument(help="As in `posta status`.")]) -> None:
    """Restart services, one process after the other: each is ready again before the next one goes."""
    home = find(os.environ)
    running = control.ask(home, "status")["services"]
    for word in services:
        if not any(word in (name, facts["service"]) for name, facts in running.items()):
            raise Trouble(f"no service is called {word}; there are {', '.join(running)}")
    for process in (name for name, facts in running.items() if {name, facts["service"]} & set(services)):
        control.ask(home, "restart", 120.0, service=process)
        print(f"{process} is ready again", flush=True)


@app.command("trace")
def _trace(
    what: Annotated[str, typer.Argument(help="Message-ID, address or spool id.")],
    limit: Annotated[int, typer.Option(min=1, help="The newest so many messages.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show where a message is, step by step; exit code 1 when nothing is known of it."""
    # Imported late: the bus takes longer to load than most verbs to run.
    from services.dev import trace

    found = asyncio.run(trace.journeys(nats_url(find(os.environ)), what, limit))
    if as_json:
        print(trace.as_json(found))
    elif found:
        trace.show(found)
    if not found:
        raise Trouble(f"nothing is known of {what}")


@app.command("doctor")
def _doctor(as_json: AsJson = False) -> None:
    """Check store, bus, services, certificate, engines and DNS records; exit code 1 when something is wrong."""
    from services.core.doctor import State
    from services.dev import doctor

    found = asyncio.run(doctor.doctor(find(os.environ), os.environ))
    if as_json:
        print(doctor.as_json(found))
    else:
        doctor.show(found)
    if any(line.state is State.WRONG for line in found):
        raise typer.Exit(1)


def nats_url(home: Home) -> str:
    """POSTA_NATS_URL, or that of the platform running in this home. Raises Trouble where neither is."""
    return os.environ.get("POSTA_NATS_URL") or str(control.ask(home, "status")["urls"]["nats"])


def _refuse(line: str, code: int) -> NoReturn:
    print(f"posta: {line}", file=sys.stderr)
    sys.exit(code)


def main(words: Iterable[str] | None = None) -> NoReturn:
    """Run one verb and exit: 0 done, 1 refused, 2 wrong words, 130 interrupted; one clear line on stderr."""
    try:
        code = app(args=None if words is None else list(words), standalone_mode=False, prog_name="posta")
    except Trouble as trouble:
        _refuse(str(trouble), trouble.exit_code)
    except typer.TyperException as error:
        _refuse(error.format_message(), error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python must not complain of it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
