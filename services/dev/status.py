"""`posta status`: what runs, as a table for people and as JSON for scripts."""

import json
import sys
from typing import TYPE_CHECKING, Any

from services.dev import control
from services.dev.home import Home

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 240


def status(home: Home) -> dict[str, Any]:
    """The state of the platform in this home; of one that does not run, what it last was, with everything down.

    Raises Trouble where one runs but does not answer.
    """
    if home.is_held():
        return {"running": True, **control.ask(home, "status", 10.0)}
    last = home.last_state()
    services = {
        name: {**facts, "state": "down", "pid": None, "began_at": None, "uptime_s": None}
        for name, facts in (last.get("services") or {}).items()
    }
    return {"running": False, **last, "home": str(home.root), "pid": None, "phase": "down", "ready": False} | {
        "services": services
    }


def show(state: dict[str, Any], as_json: bool) -> None:
    """Print it."""
    if as_json:
        print(json.dumps(state, indent=1))
        return
    if not state["running"]:
        print(f"posta is not running in {state['home']}")
        return
    # Imported late: `posta status --json` is called in loops by scripts.
    from rich.table import Table

    print(f"posta in {state['home']}, pid {state['pid']}, {state['phase']}")
    table = Table("service", "state", "pid", "up", "restarts", "ports", box=None, pad_edge=False)
    for name, facts in state["services"].items():
        ports = "  ".join(f"{role} {port}" for role, port in facts["ports"].items())
        reason = f" ({facts['reason']})" if facts["reason"] else ""
        up = "" if facts["uptime_s"] is None else _span(facts["uptime_s"])
        table.add_row(name, facts["state"] + reason, str(facts["pid"] or ""), up, str(facts["restarts"]), ports)
    console().print(table)


def console() -> "Console":
    """Where tables go: as wide as the terminal, and never cut short for a pipe or a file."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)


def _span(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
