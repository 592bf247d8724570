"""The engines, one file each; this tuple is the only place that names them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from services.core.settings import BadSettings, Filter
from services.filter.engine import Engine
from services.filter.engines import policy, spam_rspamd, virus_clamd, virus_signatures

ENGINES: tuple[Callable[[Filter], Engine | None], ...] = (
    virus_clamd.engine,
    virus_signatures.engine,
    policy.engine,
    spam_rspamd.engine,
)


def configured(settings: Filter, optional: Collection[str] = ()) -> tuple[Engine, ...]:
    """The engines that these settings ask for; those named in `optional` may fail without holding mail up.

    Raises BadSettings for an optional engine that is not there, and for what an engine cannot be made of.
    """
    engines = [engine for make in ENGINES if (engine := make(settings)) is not None]
    if unknown := set(optional) - {engine.name for engine in engines}:
        raise BadSettings(f"no such engine: {', '.join(sorted(unknown))}")
    return tuple(replace(engine, required=engine.name not in optional) for engine in engines)
