"""`make bench`: start a fresh Posta, and Postfix + Dovecot where they are installed, drive both, print ratios.

The driver is target-agnostic and lives outside this repository; BENCH_DRIVER names its folder.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from bench import dead, relay
from bench.measured import drive, ratios
from bench.sides import CLAMD_OF_RIVAL, DNS_OF_RIVAL, DRIVER, ROOT, RSPAMD_OF_RIVAL, ours, rival
from bench.sink import installed

RIVAL, FILTERED = "postfix+dovecot", "postfix+dovecot+rspamd+clamd"
OURS, SHARED = "posta", "posta+theirs"
DRIVEN = "submit,smtp,idle,imap,pop3,idleconns,append,conc"


def main() -> None:
    """Run the parts that are asked for and print a table for each; everything is kept under bench-results/."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--parts", default=",".join(PARTS), help="of " + ", ".join(PARTS))
    parser.add_argument("--tests", default=DRIVEN, help="of the driver, in the part of that name")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--scale", choices=("full", "quick"), default="full")
    parser.add_argument("--idle-conns", default="1000")
    parser.add_argument("--port-base", type=int, default=7000)
    parser.add_argument("--alone", action="store_true", help="without the rival")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: told to stop"))  # what was started is stopped
    if not (DRIVER / "bench.py").exists():
        sys.exit(f"bench: no driver at {DRIVER}; BENCH_DRIVER names its folder")
    wanted = args.parts.split(",")
    if unknown := set(wanted) - set(PARTS):
        sys.exit(f"bench: no such part: {', '.join(sorted(unknown))}")
    for part in wanted:
        kept = ROOT / "bench-results"
        kept.mkdir(exist_ok=True)
        results = kept / f"{part}.jsonl"
        results.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(prefix="posta-bench-") as made:
            folder = Path(made)
            folder.chmod(0o755)
            table = PARTS[part](folder, results, args)
        (kept / f"{part}.md").write_text(table + "\n")
        print(table, flush=True)


def _driver(folder: Path, results: Path, args: argparse.Namespace) -> str:
    """Both without engines: accepting, delivering, reading."""
    words = ["--tests", args.tests, "--runs", str(args.runs), "--scale", args.scale]
    words += ["--idle-conns", *args.idle_conns.split(",")]
    with ours(folder, args.port_base) as one, rival(folder, alone=args.alone) as other:
        drive(results, [one] if other is None else [one, other], *words)
    return ratios(results, [OURS], RIVAL)


def _engines(folder: Path, results: Path, args: argparse.Namespace) -> str:
    """The MX port with clamd and rspamd: ours with its own, and with the very daemons of the rival.

    Loopback is treated as an outside client on both sides, and every name that is asked for does not exist.
    """
    words = ["--tests", "smtp", "--runs", str(args.runs), "--scale", args.scale]
    outside = {"POSTA_FILTER_AUTH_EXEMPT": ""}
    with rival(folder, "filter", alone=args.alone) as other:
        if other is None:
            with ours(folder / "own", args.port_base, OURS, engines=True, env=outside) as one:
                drive(results, [one], *words)
            return ratios(results, [OURS], FILTERED)
        theirs = {
            **outside,
            "POSTA_FILTER_CLAMD": CLAMD_OF_RIVAL,
            "POSTA_FILTER_RSPAMD": RSPAMD_OF_RIVAL,
            "POSTA_DNS_SERVERS": DNS_OF_RIVAL,
        }
        with (
            ours(folder / "own", args.port_base, OURS, engines=True, env=outside) as one,
            ours(folder / "shared", args.port_base + 1000, SHARED, engines=True, env=theirs) as two,
        ):
            drive(results, [one, two.beside(other, "clamd", "rspamd", "redis", "dnsmasq"), other], *words)
    return ratios(results, [OURS, SHARED], FILTERED)


def _relay(folder: Path, results: Path, args: argparse.Namespace) -> str:
    """The way out, to a sink."""
    if not installed():
        return "bench: smtp-sink is not installed: no relay measured"
    with ours(folder, args.port_base) as one, rival(folder, alone=args.alone) as other:
        number = 2000 if args.scale == "full" else 300
        relay.measure(results, [one] if other is None else [one, other], number, args.runs)
    return ratios(results, [OURS], RIVAL)


def _dead(folder: Path, results: Path, args: argparse.Namespace) -> str:
    """A queue full of mail for dead hosts, and what is live beside it: against itself with an empty queue."""
    if not installed():
        return "bench: smtp-sink is not installed: nothing measured beside a full queue"
    port = args.port_base + 25
    dead.zones(folder / "home" / "zones")
    with ours(folder, args.port_base, env={"POSTA_RELAY_PORT": str(port)}) as one:
        dead.measure(results, one, port, 100_000, args.scale)
    return ratios(results, [dead.ATTEMPTED, dead.WAITING], dead.EMPTY)


PARTS = {"driver": _driver, "engines": _engines, "relay": _relay, "dead": _dead}


if __name__ == "__main__":
    main()
