"""`posta apply` and `posta export`: the whole directory as one document."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from services.dev.dkim_verbs import dkim_settings
from services.dev.provision_verbs import database_url, nats_url
from services.dev.trouble import Trouble


def apply(
    file: Annotated[Path, typer.Option("--file", "-f", help="YAML or JSON; - is stdin.")],
    prune: Annotated[bool, typer.Option(help="Take away what is not declared; mail is never deleted.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would change.")] = False,
) -> None:
    """Make domains, accounts, aliases and DKIM keys what a document declares; a second time it changes nothing."""
    # Imported late: the store takes longer to load than most verbs to run.
    from services.admin.declared import BadDeclaration, Declaration, read

    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Trouble(f"{file}: {error}", 2) from None

    async def go(declared: Declaration) -> int:
        from services.admin.reconcile import Reconciler
        from services.dev.provision import Provisioning

        changes = 0
        async with Provisioning.at(database_url(), nats_url()) as provisioning:
            rotation = provisioning.rotation(dkim_settings())
            run = Reconciler(provisioning.store, provisioning.tell, rotation, prune=prune, dry=dry_run).run(declared)
            async for line in run:
                print(line, flush=True)
                changes += 1
        return changes

    try:
        changes = asyncio.run(go(read(text)))
    except BadDeclaration as error:
        raise Trouble(f"{file}: {error}", 2) from None
    print(f"{changes} changes{' would be made' if dry_run else ''}")


def export() -> None:
    """Write domains, accounts and aliases as YAML that `apply` and the chart's values take; without passwords."""

    async def go() -> str:
        from services.admin.reconcile import exported
        from services.dev.provision import Provisioning

        async with Provisioning.at(database_url()) as provisioning:
            return await exported(provisioning.store)

    print(asyncio.run(go()), end="")
