"""What has to exist before the services start: a certificate, the schema and the demo accounts that are named.

Run by the supervisor as a process of its own, started before Postgres is up: a line on stdin says that it is. The
settings that come of it are one JSON object on stdout.
"""

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout

from services.core.settings import load
from services.core.store.migrate import Outdated, migrate
from services.core.tls import ensure_dev_certificate
from services.dev import demo, people
from services.dev.home import find
from services.dev.plan import HOSTNAME, LISTEN_HOST


async def prepare(env: Mapping[str, str], accounts: Sequence[str]) -> dict[str, str]:
    """Make it, or find it made. `env` names the home and the database."""
    # A key that no service knows would keep each of them from starting: said here, once and at once.
    load(env)
    made: dict[str, str] = {}
    if not env.get("POSTA_TLS_CERT"):
        files = ensure_dev_certificate(find(env).tls, (HOSTNAME, LISTEN_HOST, people.DOMAIN))
        made = {"POSTA_TLS_CERT": str(files.cert), "POSTA_TLS_KEY": str(files.key), "ca": str(files.ca)}
    if not await asyncio.to_thread(sys.stdin.readline):
        sys.exit("posta: the start was given up")
    try:
        await migrate(env.get("POSTA_DATABASE_DIRECT_URL") or env["POSTA_DATABASE_URL"])
    except Outdated as error:
        sys.exit(f"posta: {error}")
    await demo.ensure_accounts(env["POSTA_DATABASE_URL"], accounts)
    return made


if __name__ == "__main__":
    # The answer is the only thing on stdout, whatever a library prints.
    with redirect_stdout(sys.stderr):
        answer = asyncio.run(prepare(os.environ, sys.argv[1:]))
    print(json.dumps(answer))
