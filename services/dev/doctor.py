"""`posta doctor`: what is well here, what is wrong, and what to do."""

import json
import os
from collections.abc import Mapping
from typing import Any

from services.core.dns import Dns
from services.core.doctor import House, Line, State, examine
from services.core.settings import BadSettings, read
from services.core.store.engine import Store
from services.dev import control
from services.dev.home import Home
from services.dev.quiet import bus_at
from services.dev.trouble import Trouble

MARKS = {State.OK: "ok", State.NOTE: "note", State.WRONG: "WRONG"}


async def doctor(home: Home, env: Mapping[str, str]) -> list[Line]:
    """Every finding about the platform that runs in this home; without one, about what `env` names.

    Raises Trouble where neither is.
    """
    running = control.ask(home, "status")["services"] if home.is_held() else {}
    given = {**env, **control.ask(home, "environment")} if home.is_held() else env
    try:
        settings = read(given, ("database.url",))
    except BadSettings as error:
        raise Trouble(f"posta is not running in {home.root}, and {error}" if not running else str(error)) from None
    store = Store(settings.database.url, pool=2)
    try:
        async with bus_at(settings.nats.url) as bus:
            found = await examine(House(settings, store, bus, Dns(settings.dns.servers, settings.dns.timeout_s)))
    finally:
        await store.close()
    return [*_services(running), *found]


def _services(running: Mapping[str, Any]) -> list[Line]:
    if not running:
        return [Line("services", State.NOTE, "no platform of this home runs: whether services are ready is not known")]
    waiting = {name: facts for name, facts in running.items() if facts["state"] != "ready"}
    ready = [name for name in running if name not in waiting]
    return [
        Line("services", State.OK, f"{', '.join(ready)}: ready"),
        *(
            Line(
                "services",
                State.WRONG,
                f"{name} is {facts['state']}" + (f": {facts['reason']}" if facts["reason"] else ""),
                f"`posta start {name}`" if facts["state"] == "down" else f"see {facts['log']}",
            )
            for name, facts in waiting.items()
        ),
    ]


def as_json(lines: list[Line]) -> str:
    """For scripts."""
    wrong = sum(line.state is State.WRONG for line in lines)
    return json.dumps({"wrong": wrong, "findings": [line._asdict() for line in lines]}, indent=1)


def show(lines: list[Line]) -> None:
    """For people: what is wrong last, where the eye is."""
    for line in sorted(lines, key=lambda each: list(State).index(each.state)):
        print(f"{MARKS[line.state]:<6}{line.check}: {line.says}")
        if line.do:
            print(f"{'':6}  {line.do}")
    wrong = sum(line.state is State.WRONG for line in lines)
    print(f"{os.linesep}{wrong} thing{'s' if wrong != 1 else ''} to mend" if wrong else f"{os.linesep}nothing is wrong")
