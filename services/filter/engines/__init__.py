"""The engines, one file each; these tuples are the only place that names them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from services.core.settings import BadSettings, Filter
from services.filter.engine import Engine
from services.filter.engines import auth, policy, spam_rspamd, virus_clamd, virus_signatures
from services.filter.origin.lookup import Names

ENGINES: tuple[Callable[[Filter], Engine | None], ...] = (
    virus_clamd.engine,
    virus_signatures.engine,
    policy.engine,
    spam_rspamd.engine,
)
ASKING: tuple[Callable[[Filter, Names], Engine | None], ...] = (auth.engine,)
"""Those that put questions to the DNS."""


def configured(settings: Filter, optional: Collection[str] = (), names: Names | None = None) -> tuple[Engine, ...]:
    """The engines that these settings ask for; those named in `optional` may fail without holding mail up.

    `names`: the DNS; those that ask it are left out where there is none.

    Raises BadSettings for an optional engine that is not there, and for what an engine cannot be made of.
    """
    engines = [engine for make in ENGINES if (engine := make(settings)) is not None]
    if names is not None:
        engines += [engine for asking in ASKING if (engine := asking(settings, names)) is not None]
    if unknown := set(optional) - {engine.name for engine in engines}:
        raise BadSettings(f"no such engine: {', '.join(sorted(unknown))}")
    return tuple(replace(engine, required=engine.name not in optional) for engine in engines)
