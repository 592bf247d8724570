"""`python -m services.admin VERB`: apply, export, restore, restored, canary, journey; `--help` has their words."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
from datetime import UTC, datetime
from pathlib import Path

from services.admin.canary import Canary
from services.admin.clients import Api, Failed, Way
from services.admin.declared import BadDeclaration, Declaration, read
from services.admin.journey import Journey
from services.admin.mailbox import give_up, take
from services.admin.reconcile import Reconciler, exported
from services.admin.restore import NotRestored, Restoration
from services.core.address import BadAddress
from services.core.auth.passwords import BadPassword
from services.core.backbone import open_bus, open_store
from services.core.bus import Bus
from services.core.directory import announce
from services.core.dkim.keys import KeyUnusable
from services.core.dkim.rotation import Rotation
from services.core.dns import Dns
from services.core.foldername import BadName
from services.core.ids import AccountId
from services.core.service import Service, run
from services.core.settings import Settings, load
from services.core.store import beside
from services.core.store.accounts import AccountError
from services.core.store.engine import Store, StoreUnavailable
from services.core.store.restored import leave_gap
from services.core.telemetry import configure_logs


async def canary(service: Service) -> None:
    settings = service.settings
    store, bus = await open_store(service), await open_bus(service)
    login = settings.probe.address, secrets.token_urlsafe(24)
    await take(store, bus, login)
    way = Way.of(settings.probe, settings.hostname)
    dns = Dns(settings.dns.servers, settings.dns.timeout_s)
    service.spawn(Canary(settings.probe, way, login, service.log, service.metrics, dns).run(), "canary")


async def journey(settings: Settings, store: Store, bus: Bus) -> None:
    """The steps of `helm test`, with a mailbox of their own."""
    login = settings.probe.address, secrets.token_urlsafe(24)
    await take(store, bus, login)
    try:
        way, token = Way.of(settings.probe, settings.hostname), settings.sync.admin_token
        api = Api(way, settings.probe.admin, token.get_secret_value()) if settings.probe.admin and token else None
        await asyncio.to_thread(Journey(settings.probe, way, login, api, print).run)
    finally:
        await give_up(store, bus, login[0])


async def apply(settings: Settings, store: Store, bus: Bus, declared: Declaration, prune: bool, dry: bool) -> None:
    """Reconcile, one printed line for each change."""

    async def tell(domain: str, account_id: AccountId | None) -> None:
        await announce(bus, domain=domain, account_id=account_id)

    changes = 0
    rotation = Rotation(store, lambda: Dns(settings.dns.servers, settings.dns.timeout_s), settings.dkim.key_secret)
    async for line in Reconciler(store, tell, rotation, prune=prune, dry=dry).run(declared):
        print(line, flush=True)
        changes += 1
    print(f"{changes} changes{' would be made' if dry else ''}")


async def restore(store: Store, bus: Bus, words: argparse.Namespace) -> None:
    """Bring one mailbox back, one printed line for each folder."""
    count = 0
    async with beside.opened(words.source, store) as source:
        async for path, came in Restoration(store, source, bus).run(words.address, words.into, words.since):
            print(f"{path}: {came}", flush=True)
            count += came
    print(f"{count} messages restored")


async def _once(settings: Settings, words: argparse.Namespace, text: str) -> None:
    log = configure_logs("admin", settings.log.level, sys.stderr)
    store = Store(settings.database.url, pool=2)
    bus = await Bus.connect(settings.nats.url, "admin", log, settings.nats.keeping)
    try:
        if words.verb == "apply":
            await apply(settings, store, bus, read(text), words.prune, words.dry_run)
        elif words.verb == "export":
            print(await exported(store), end="")
        elif words.verb == "restore":
            await restore(store, bus, words)
        elif words.verb == "restored":
            print(f"{await leave_gap(store)} accounts are ready for their clients")
        else:
            await journey(settings, store, bus)
    finally:
        await bus.close()
        await store.close()


def _words() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m services.admin")
    verbs = parser.add_subparsers(dest="verb", required=True)
    applying = verbs.add_parser("apply", help="make the directory what a YAML or JSON document declares")
    applying.add_argument("file", nargs="?", default="-")
    applying.add_argument("--prune", action="store_true", help="take away what is not declared; mail is never deleted")
    applying.add_argument("--dry-run", action="store_true", help="only tell what would change")
    verbs.add_parser("export", help="write the directory as such a document")
    restoring = verbs.add_parser("restore", help="bring back what a mailbox held in a store that lies beside this one")
    restoring.add_argument("address")
    restoring.add_argument("--from", dest="source", required=True, help="postgresql://user:password@host:port/database")
    restoring.add_argument("--into", default="", help="a folder to put its folders into")
    restoring.add_argument("--since", type=_day, help="only what was received then (YYYY-MM-DD) or later")
    verbs.add_parser("restored", help="after a restore to an earlier time, before the services start")
    verbs.add_parser("canary", help="mail itself for ever and show how long it takes")
    verbs.add_parser("journey", help="one message through every door, as `helm test` does")
    return parser.parse_args()


def _day(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)


def _text(words: argparse.Namespace) -> str:
    if words.verb != "apply":
        return ""
    return sys.stdin.read() if words.file == "-" else Path(words.file).read_text("utf-8")


def main() -> None:
    """Exit code 0 done, 1 not done, 2 wrong words or settings; one clear line on stderr."""
    words = _words()
    if words.verb == "canary":
        run("canary", canary)
    try:
        asyncio.run(_once(load(), words, _text(words)))
    except (BadDeclaration, BadAddress, BadName, BadPassword, KeyUnusable, NotRestored, beside.Unfit) as error:
        sys.exit(f"posta: {error}")
    except (AccountError, Failed, OSError, StoreUnavailable) as error:
        sys.exit(f"posta: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
