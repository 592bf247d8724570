"""The engines of an embedded run: those of clamd and rspamd that are installed, unless others are named."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from services.dev import clamd, rspamd
from services.dev.home import Home
from services.dev.plan import Plan
from services.dev.trouble import Trouble

# name: the Debian package that brings it, and the setting that names a server of somebody else's.
ENGINES = {"clamd": ("clamav-daemon", "POSTA_FILTER_CLAMD"), "rspamd": ("rspamd", "POSTA_FILTER_RSPAMD")}
WHERE = "/usr/local/sbin:/usr/sbin:/sbin"
ALL, NONE = "installed", "none"
START_S = 180.0
"""clamd reads the whole of the system's signatures before it listens."""

Embedded = clamd.Clamd | rspamd.Rspamd


def binary(name: str) -> Path | None:
    """Where an engine's program lies; None where its package is not installed."""
    found = shutil.which(name) or shutil.which(name, path=WHERE)
    return Path(found) if found else None


def chosen(plan: Plan, env: Mapping[str, str]) -> dict[str, Path]:
    """The engines to be run and their programs, as POSTA_ENGINES says: `installed`, `none`, or their names.

    None without a filter to use them, and none in the place of a server that a setting names. Raises Trouble for a name
    that is no engine's, or of one that is not installed.
    """
    if all(service.name != "filter" for service in plan.services):
        return {}
    words = (env.get("POSTA_ENGINES", "") or ALL).replace(",", " ").split()
    if words == [NONE]:
        return {}
    if words == [ALL]:
        return {
            name: path for name, (_, key) in ENGINES.items() if not env.get(key) and (path := binary(name)) is not None
        }
    return {name: _installed(name) for name in words}


def _installed(name: str) -> Path:
    if name not in ENGINES:
        raise Trouble(f"POSTA_ENGINES: expected {ALL}, {NONE} or some of {', '.join(ENGINES)}, got {name}")
    path = binary(name)
    if path is None:
        raise Trouble(f"{name} is not installed (Debian: apt-get install {ENGINES[name][0]})")
    return path


def embedded(home: Home, plan: Plan, programs: Mapping[str, Path], env: Mapping[str, str]) -> list[Embedded]:
    """These engines of this home, their configuration written. Raises Trouble."""
    resolvers = env.get("POSTA_DNS_SERVERS", "").replace(",", " ").split()
    made: list[Embedded] = []
    if (path := programs.get("clamd")) is not None:
        made.append(clamd.embedded(home, path, plan.clamd_port))
    if (path := programs.get("rspamd")) is not None:
        made.append(rspamd.embedded(home, path, plan.rspamd_ports, resolvers))
    for each in made:
        each.prepare()
    return made
