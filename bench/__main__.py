"""`make bench`: start a fresh Posta, and Postfix + Dovecot where they are installed, drive both, print ratios.

The driver is target-agnostic and lives outside this repository; BENCH_DRIVER names its folder.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.core.auth.enroll import set_password
from services.core.store import accounts
from services.core.store.engine import Store
from services.dev.plan import Plan

ROOT = Path(__file__).resolve().parents[1]
DRIVER = Path(os.environ.get("BENCH_DRIVER", ROOT.parent / "shared" / "bench"))
DOMAIN, PASSWORD, USERS = "bench.test", "bench-pass-1", 100
RIVAL, OURS = "postfix+dovecot", "posta"
# Where less is better; of the others more is.
LESS = {"ms"}, {"server_cpu_per_msg", "pss_per_conn", "rss_per_conn", "pss_total"}


async def _make_users(url: str) -> None:
    store = Store(url)
    async with store.begin("bench.users") as conn:
        await accounts.create_domain(conn, DOMAIN)
        for n in range(1, USERS + 1):
            account = await accounts.create(conn, f"u{n:04d}@{DOMAIN}")
            await set_password(conn, account, PASSWORD)
    await store.close()


@contextmanager
def _posta(folder: Path, base: int) -> Iterator[Path]:
    """A platform of its own with the driver's users; yields its target file."""
    env = {
        **os.environ,
        "POSTA_HOME": str(folder / "home"),
        "POSTA_PORT_BASE": str(base),
        "POSTA_SUBMISSION_RECIPIENTS_PER_HOUR": "0",  # one account sends it all
        "POSTA_SUBMISSION_RECIPIENTS_PER_DAY": "0",
        "POSTA_SUBMISSION_PAUSE_RECIPIENTS": "0",
        "POSTA_LOGIN_PLAINTEXT_AUTH": "true",  # the driver logs in to IMAP and POP without TLS, on both sides
    }

    def posta(*words: str) -> str:
        command = (sys.executable, "-m", "services.dev", *words)
        return subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout

    posta("up", "--detach", "--without-engines")  # the rival has none
    try:
        state = json.loads(posta("status", "--json"))
        asyncio.run(_make_users(state["urls"]["database"]))
        ports = Plan(base).doors()
        target = {
            "name": OURS,
            "smtp": {"port": ports["smtp"]},
            "submission": {"port": ports["submission"], "tls": "starttls", "auth": True},
            "imap": {"port": ports["imap"], "tls": "none"},
            "pop3": {"port": ports["pop3"]},
            "users": {"pattern": f"u%04d@{DOMAIN}", "count": USERS, "password": PASSWORD},
            # Everything that serves mail: our services, NATS and Postgres with its backends. Not the supervisor.
            "procs": {"pidfiles": [str(folder / "home" / "run" / f"{name}.pid") for name in state["services"]]},
        }
        path = folder / "posta.json"
        path.write_text(json.dumps(target))
        yield path
    finally:
        posta("down")


@contextmanager
def _rival(folder: Path, alone: bool) -> Iterator[Path | None]:
    """Postfix + Dovecot as the driver's folder sets them up, where this machine has them."""
    if alone:
        yield None
        return
    if os.geteuid() != 0 or not (shutil.which("postfix") and shutil.which("dovecot")):
        print(
            "bench: Postfix and Dovecot are not installed (or this is not root): no rival in this run", file=sys.stderr
        )
        yield None
        return
    os.environ["PEERS_STATE"] = str(folder / "rival")
    subprocess.run(["sh", DRIVER / "start.sh", "plain"], check=True)
    try:
        yield DRIVER / "targets" / "dovecot.json"
    finally:
        subprocess.run(["sh", DRIVER / "stop.sh", "wipe"], check=False)


def _ratios(results: Path) -> str:
    """A table of medians, and how many times better (above 1) or worse (below) we are."""
    values: dict[tuple[str, str, str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in results.read_text().splitlines():
        row = json.loads(line)
        if row["target"] is None:
            continue
        shown = {
            k: v for k, v in row.get("params", {}).items() if k in {"size", "per_conn", "phase", "clients", "conns"}
        }
        key = (row["test"], row["metric"], " ".join(f"{k}={v}" for k, v in shown.items()), row["unit"])
        if isinstance(row["value"], int | float):
            values[key][row["target"]].append(row["value"])
        else:
            print(f"bench: {row['target']} {row['test']} {row['metric']}: {row.get('params')}", file=sys.stderr)
    lines = [f"| what | unit | {OURS} | {RIVAL} | times better |", "|---|---|---|---|---|"]
    for (test, metric, shown_as, unit), by_target in values.items():
        ours, theirs = (statistics.median(by_target[t]) if by_target[t] else None for t in (OURS, RIVAL))
        better = ""
        if ours and theirs:
            better = f"{theirs / ours if unit in LESS[0] or metric in LESS[1] else ours / theirs:.2f}"
        cells = ("" if v is None else f"{v:.4g}" for v in (ours, theirs))
        lines.append(f"| {test} {metric} {shown_as} | {unit} | {' | '.join(cells)} | {better} |")
    return "\n".join(lines)


def main() -> None:
    """Run the driver over both targets and print the table; everything is kept under bench-results/."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--tests", default="submit,smtp,idle,imap,pop3,idleconns,append,conc")
    parser.add_argument("--runs", default="1")
    parser.add_argument("--scale", choices=("full", "quick"), default="full")
    parser.add_argument("--idle-conns", default="1000")
    parser.add_argument("--port-base", type=int, default=7000)
    parser.add_argument("--alone", action="store_true", help="without the rival")
    args = parser.parse_args()
    if not (DRIVER / "bench.py").exists():
        sys.exit(f"bench: no driver at {DRIVER}; BENCH_DRIVER names its folder")
    kept = ROOT / "bench-results"
    kept.mkdir(exist_ok=True)
    results = kept / "last.jsonl"
    results.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="posta-bench-") as made:
        folder = Path(made)
        folder.chmod(0o755)
        with _posta(folder, args.port_base) as ours, _rival(folder, args.alone) as rival:
            targets = [ours] if rival is None else [ours, rival]
            command = [sys.executable, str(DRIVER / "bench.py"), "--out", str(results), "--tests", args.tests]
            command += ["--runs", args.runs, "--scale", args.scale, "--idle-conns", *args.idle_conns.split(",")]
            for target in targets:
                command += ["--target", str(target)]
            subprocess.run(command, check=True)
    table = _ratios(results)
    (kept / "last.md").write_text(table + "\n")
    print(table)


if __name__ == "__main__":
    main()
