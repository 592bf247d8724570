"""Where the platforms of tests may listen: below what the kernel hands out to clients, no two workers at one place."""

from __future__ import annotations

import os

LOWEST, HIGHEST = 10_000, 31_000
_SPAN = 1000  # of one platform
_WORKERS = 2


def bases(step: int) -> range:
    """The port bases that this test worker may choose from."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
    share = (HIGHEST - LOWEST) // _WORKERS
    return range(LOWEST + worker * share, LOWEST + (worker + 1) * share - _SPAN, step)
