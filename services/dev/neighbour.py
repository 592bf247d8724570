"""A second platform for a moment: remote.test beside posta.test, so that mail is seen to leave and to come in.

It has a home inside the first one's, ports 5000 above, and asks the first one's test DNS; the relay of each connects to
the port where the other takes mail. When alice and carol have written to each other it stops and nothing is left of it,
except, where that failed, its logs. It dies with the first one; what a killed one leaves in its home the next one uses.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping

from services.dev.beside import beside
from services.dev.home import Home, find
from services.dev.people import CAROL, FAR
from services.dev.place import wipe
from services.dev.plan import LISTEN_HOST, Plan, base_of
from services.dev.supervisor import CLONE, PREPARE, Supervisor
from services.dev.trouble import Trouble

OFFSET, HIGHEST_BASE = 5000, 64000
# It is written to and it answers; nobody reads there but the trace.
SERVICES = ("filter", "delivery", "submission", "mxrouter")
NEEDED = (*SERVICES, "imap")
EXCHANGE_STOP_S = 5.0


def home_of(home: Home) -> Home:
    """Where the neighbour of this home's platform lies."""
    return Home(home.root / "neighbour")


def plan_of(plan: Plan) -> Plan:
    """The neighbour's services and ports."""
    above = plan.base + OFFSET <= HIGHEST_BASE
    return Plan(plan.base + OFFSET if above else plan.base - OFFSET).chosen(",".join(SERVICES))


def missing(plan: Plan, env: Mapping[str, str]) -> str:
    """Why this platform cannot be shown with a neighbour; empty where it can."""
    if absent := sorted(set(NEEDED) - {service.name for service in plan.services}):
        return f"a neighbour is of no use without {', '.join(absent)}"
    for key, words in (
        ("POSTA_DNS_SERVERS", "the test DNS is not asked"),
        ("POSTA_RELAY_PORT", "mail leaves elsewhere"),
    ):
        if env.get(key):
            return f"a neighbour cannot be found: {key} is set, {words}"
    return ""


def reached(plan: Plan) -> dict[str, str]:
    """The setting by which a platform of this plan finds its neighbour."""
    return {"POSTA_RELAY_PORT": str(plan_of(plan).mx_port)}


def run(home: Home, plan: Plan, env: Mapping[str, str]) -> bool:
    """Run the neighbour of the platform in `home` until the exchange has been shown: whether it has not failed.

    Raises Trouble where it does not start. What is set for the first platform is not for the second.
    """
    own = {name: value for name, value in env.items() if not name.startswith("POSTA_")} | {
        "POSTA_ENGINES": "none",
        "POSTA_DNS_SERVERS": f"{LISTEN_HOST}:{plan.dns_port}",
        "POSTA_RELAY_PORT": str(plan.mx_port),
    }
    there, code = home_of(home), 0

    async def exchange(supervisor: Supervisor) -> None:
        nonlocal code
        code = await beside(
            *("services.dev.exchange", str(there.root)),
            env={**env, "POSTA_HOME": str(home.root)},
            cwd=CLONE,
            stop=signal.SIGKILL,
            stop_s=EXCHANGE_STOP_S,
        )
        supervisor.stop()

    def on_ready(supervisor: Supervisor) -> asyncio.Task[None]:
        return asyncio.create_task(exchange(supervisor))

    quietly = Supervisor(there, plan_of(plan), own, lambda line: None, (*PREPARE, CAROL))
    asyncio.run(quietly.run(on_ready))
    return code == 0


def main() -> None:
    """Beside a running platform: the exchange, and nothing left of it."""
    home = find(os.environ)
    try:
        well = run(home, Plan(base_of(os.environ)), os.environ)
    except Trouble as trouble:
        print(f"posta: {FAR} does not start: {trouble}", file=sys.stderr, flush=True)
        sys.exit(1)
    if well:
        wipe(home_of(home))
    sys.exit(not well)


if __name__ == "__main__":
    main()
