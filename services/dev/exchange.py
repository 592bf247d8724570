"""Two platforms mail each other: alice writes to carol at remote.test, carol answers, and the way of both is shown."""

import asyncio
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from services.contracts.v1.mail_pb2 import RelayDestination
from services.core.journeys import Journey
from services.core.subjects import relay_destination
from services.dev.demo import ARRIVAL_S, letter, trust
from services.dev.home import Home, find
from services.dev.mailtalk import Idler, submit
from services.dev.people import ALICE, CAROL, DOMAIN, FAR, PASSWORD
from services.dev.quiet import bus_at
from services.dev.status import status
from services.dev.trace import journeys, show
from services.dev.trouble import Trouble

State = Mapping[str, Any]


def exchange(here: State, there: State) -> None:
    """Both letters, and their ways as tables. Raises Trouble where one does not arrive."""
    asyncio.run(_forgive(here))
    question = letter(ALICE, CAROL, "Are you there?", "Hello Carol,\n\ndoes mail from here reach you?\n\nAlice\n")
    print(f"\n{ALICE} → {CAROL}: {_submit(here, ALICE, question)}\n", flush=True)
    asyncio.run(_show_way({DOMAIN: here, FAR: there}, question["Message-ID"]))

    answer = letter(CAROL, ALICE, "Re: Are you there?", "Hello Alice,\n\nit does.\n\nCarol\n")
    answer["In-Reply-To"] = answer["References"] = question["Message-ID"]
    with Idler(here["doors"]["imaps"], trust(here), (ALICE, PASSWORD)) as alice:
        print(f"\n{CAROL} → {ALICE}: {_submit(there, CAROL, answer)}\n", flush=True)
        alice.next_exists(ARRIVAL_S)
    asyncio.run(_show_way({FAR: there, DOMAIN: here}, answer["Message-ID"]))


def _submit(state: State, sender: str, message: Any) -> str:
    return submit(state["doors"]["submission"], trust(state), (sender, PASSWORD), message)


async def _forgive(here: State) -> None:
    """Mail of an earlier run may have found nobody there a moment ago: now there is."""
    async with bus_at(here["urls"]["nats"]) as bus:
        bus.publish_hint(relay_destination(), RelayDestination(destination=FAR))


async def _show_way(platforms: Mapping[str, State], message_id: str) -> None:
    """The steps of one message at both platforms, in one table: from the first, which relays it, to the last."""
    deadline, (first, last) = time.monotonic() + ARRIVAL_S, platforms
    while True:
        found = {name: await journeys(state["urls"]["nats"], message_id) for name, state in platforms.items()}
        # Trace events are sent in the background: that of the relay may come after the delivery.
        if _has(found[first], "relayed") and _has(found[last], "delivered"):
            show([_joined(found)])
            return
        if time.monotonic() > deadline:
            show([_joined(found)] if any(found.values()) else [])
            raise Trouble(f"{message_id} has not arrived at {last} within {ARRIVAL_S:g} s")
        await asyncio.sleep(0.1)


def _has(parts: list[Journey], name: str) -> bool:
    return any(step.step == name for journey in parts for step in journey.steps)


def _joined(found: Mapping[str, list[Journey]]) -> Journey:
    """One journey of several platforms' parts, each step with the name of its platform."""
    steps = [
        step._replace(service=f"{name} {step.service}")
        for name, parts in found.items()
        for journey in parts
        for step in journey.steps
    ]
    return Journey(steps[0].message_id, tuple(sorted(steps, key=lambda step: step.at_us)))


def main(arguments: list[str]) -> None:
    """Between the platform of this environment's home and the one of the home that is named."""
    try:
        exchange(status(find(os.environ)), status(Home(Path(arguments[0]))))
    except Trouble as trouble:
        print(f"posta: the exchange with {FAR} did not succeed: {trouble}", file=sys.stderr, flush=True)
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
