"""What was measured, in the driver's lines of JSON, and the tables that are made of them."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from bench.sides import DRIVER, Side

# Where less is better; of the others more is.
LESS = {"ms"}, {"server_cpu_per_msg", "pss_per_conn", "rss_per_conn", "pss_total"}
SHOWN = {"size", "per_conn", "phase", "clients", "conns", "domains"}


def drive(results: Path, sides: Sequence[Side], *words: str) -> None:
    """Run the driver over the sides, one after the other in every test."""
    command = [sys.executable, str(DRIVER / "bench.py"), "--out", str(results), *words]
    for side in sides:
        command += ["--target", str(side.target)]
    subprocess.run(command, check=True)


def note(results: Path, target: str, test: str, metric: str, value: float, unit: str, **params: object) -> None:
    """Add one figure."""
    row = {"target": target, "test": test, "metric": metric, "value": value, "unit": unit, "params": params}
    with results.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


def ratios(results: Path, ours: Sequence[str], rival: str) -> str:
    """A table of medians, and how many times better (above 1) or worse (below) each of ours is than the rival."""
    values: dict[tuple[str, str, str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in results.read_text().splitlines():
        row = json.loads(line)
        if row["target"] is None:
            continue
        shown = {k: v for k, v in row.get("params", {}).items() if k in SHOWN}
        key = (row["test"], row["metric"], " ".join(f"{k}={v}" for k, v in shown.items()), row["unit"])
        if isinstance(row["value"], int | float):
            values[key][row["target"]].append(row["value"])
        else:
            print(f"bench: {row['target']} {row['test']} {row['metric']}: {row.get('params')}", file=sys.stderr)
    heads = [*ours, rival, *(f"{each}: times better" if len(ours) > 1 else "times better" for each in ours)]
    lines = [f"| what | unit | {' | '.join(heads)} |", "|---|---|" + "---|" * len(heads)]
    for (test, metric, shown_as, unit), by_target in values.items():
        medians = {each: statistics.median(by_target[each]) for each in (*ours, rival) if by_target[each]}
        less = unit in LESS[0] or metric in LESS[1]
        cells = [f"{medians[each]:.4g}" if each in medians else "" for each in (*ours, rival)]
        cells += [_better(medians.get(each), medians.get(rival), less=less) for each in ours]
        lines.append(f"| {test} {metric} {shown_as} | {unit} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _better(one: float | None, other: float | None, *, less: bool) -> str:
    if not one or not other:
        return ""
    return f"{other / one if less else one / other:.2f}"
