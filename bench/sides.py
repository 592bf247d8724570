"""The sides of a comparison, each fresh: a platform of ours, and Postfix + Dovecot as the driver sets it up."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from services.core.auth.enroll import set_password
from services.core.store import accounts, folders
from services.core.store.engine import Store
from services.dev.plan import Plan

ROOT = Path(__file__).resolve().parents[1]
DRIVER = Path(os.environ.get("BENCH_DRIVER", ROOT.parent / "shared" / "bench"))
DOMAIN, PASSWORD, USERS = "bench.test", "bench-pass-1", 100
MX_OF_RIVAL, SUBMISSION_OF_RIVAL, IMAP_OF_RIVAL = 10025, 10587, 10143
_OTHERS_S, _LATE_S = 900.0, 60.0
CLAMD_OF_RIVAL, RSPAMD_OF_RIVAL, DNS_OF_RIVAL = "127.0.0.1:13310", "127.0.0.1:21333", "127.0.0.1:10053"


def user(number: int) -> str:
    """The address of one of the driver's users, from 1."""
    return f"u{number:04d}@{DOMAIN}"


@dataclass(frozen=True, slots=True)
class Side:
    """A running mail system: the driver's description of it, and where users hand in mail."""

    target: Path
    submission: int

    @property
    def name(self) -> str:
        return str(json.loads(self.target.read_text())["name"])

    @property
    def pidfiles(self) -> tuple[Path, ...]:
        """Of everything that serves mail there."""
        return tuple(
            Path(os.path.expandvars(each)) for each in json.loads(self.target.read_text())["procs"]["pidfiles"]
        )


@dataclass(frozen=True, slots=True)
class Ours(Side):
    """A platform of ours."""

    home: Path
    base: int
    env: Mapping[str, str]

    def posta(self, *words: str) -> str:
        """What `posta <words>` prints."""
        command = (sys.executable, "-m", "services.dev", *words)
        return subprocess.run(command, cwd=ROOT, env=self.env, check=True, stdout=subprocess.PIPE, text=True).stdout

    def called(self, name: str) -> Ours:
        """The same under another name."""
        target = self.target.with_name(f"{name}.json")
        target.write_text(json.dumps({**json.loads(self.target.read_text()), "name": name}))
        return replace(self, target=target)

    def beside(self, other: Side, *engines: str) -> Ours:
        """The same with these engines, which the other side has started, counted as its own."""
        target = json.loads(self.target.read_text())
        started = [str(each) for each in other.pidfiles if each.stem in engines]
        target["procs"]["pidfiles"] += started
        self.target.write_text(json.dumps(target))
        return self

    def url(self, of: str) -> str:
        """Of "database" or "nats"."""
        return str(json.loads(self.posta("status", "--json"))["urls"][of])


@dataclass(frozen=True, slots=True)
class Rival(Side):
    """Postfix + Dovecot."""

    state: Path

    def postconf(self, *settings: str) -> None:
        """Change these settings, and let them count."""
        etc = str(self.state / "postfix" / "etc")
        subprocess.run(("postconf", "-c", etc, "-e", *settings), check=True)
        subprocess.run(("postfix", "-c", etc, "reload"), check=True, stderr=subprocess.DEVNULL)


@contextmanager
def ours(
    folder: Path, base: int, name: str = "posta", *, engines: bool = False, env: Mapping[str, str] | None = None
) -> Iterator[Ours]:
    """A platform with the driver's users. `engines`: with clamd and rspamd, its own unless `env` names others."""
    home = folder / "home"
    made = {
        **os.environ,
        "POSTA_HOME": str(home),
        "POSTA_PORT_BASE": str(base),
        "POSTA_SUBMISSION_RECIPIENTS_PER_HOUR": "0",  # one account sends it all
        "POSTA_SUBMISSION_RECIPIENTS_PER_DAY": "0",
        "POSTA_SUBMISSION_PAUSE_RECIPIENTS": "0",
        "POSTA_LOGIN_PLAINTEXT_AUTH": "true",  # the driver logs in to IMAP and POP without TLS, on both sides
        **(env or {}),
    }
    folder.mkdir(mode=0o755, exist_ok=True)
    ports = Plan(base).doors()
    side = Ours(folder / f"{name}.json", ports["submission"], home, base, made)
    side.posta("up", "--detach", *(() if engines else ("--without-engines",)))
    try:
        state = json.loads(side.posta("status", "--json"))
        asyncio.run(_make_users(state["urls"]["database"]))
        target = {
            "name": name,
            "smtp": {"port": ports["smtp"]},
            "submission": {"port": ports["submission"], "tls": "starttls", "auth": True},
            "imap": {"port": ports["imap"], "tls": "none"},
            "pop3": {"port": ports["pop3"]},
            "users": {"pattern": f"u%04d@{DOMAIN}", "count": USERS, "password": PASSWORD},
            # Everything that serves mail: our services, NATS and Postgres with its backends. Not the supervisor.
            "procs": {"pidfiles": [str(home / "run" / f"{each}.pid") for each in state["services"]]},
        }
        side.target.write_text(json.dumps(target))
        yield side
    finally:
        side.posta("down")


@contextmanager
def rival(folder: Path, mode: str = "plain", *, alone: bool = False) -> Iterator[Rival | None]:
    """Postfix + Dovecot, in mode `filter` with rspamd and clamd, where this machine has them."""
    wanted = ("postfix", "dovecot", *(("rspamd", "clamd", "redis-server", "dnsmasq") if mode == "filter" else ()))
    missing = [each for each in wanted if shutil.which(each) is None]
    if alone or missing or os.geteuid() != 0:
        if not alone:
            why = f"not installed: {', '.join(missing)}" if missing else "this is not root"
            print(f"bench: no rival in this run ({why})", file=sys.stderr)
        yield None
        return
    _wait_free(MX_OF_RIVAL, SUBMISSION_OF_RIVAL, IMAP_OF_RIVAL)
    state = folder / "rival"
    os.environ["PEERS_STATE"] = str(state)
    try:
        if subprocess.run(["sh", DRIVER / "start.sh", mode], check=False).returncode:
            _wait_up(state)
        name = "dovecot-filter" if mode == "filter" else "dovecot"
        yield Rival(DRIVER / "targets" / f"{name}.json", SUBMISSION_OF_RIVAL, state)
    finally:
        _stop(state)


def _stop(state: Path) -> None:
    _note_pids(state)
    subprocess.run(["sh", DRIVER / "stop.sh", "wipe"], check=False)


def _note_pids(state: Path) -> bool:
    wrote = {"dovecot": "dovecot/run/master.pid", "postfix": "postfix/spool/pid/master.pid"}
    there = {name: state / each for name, each in wrote.items() if (state / each).exists()}
    for name, path in there.items():
        shutil.copy(path, state / "run" / f"{name}.pid")
    return len(there) == len(wrote)


def _wait_up(state: Path) -> None:
    """On a busy machine a server writes its pid file later than start.sh looks for it."""
    until = time.monotonic() + _LATE_S
    while not (_note_pids(state) and _listens(MX_OF_RIVAL) and _listens(IMAP_OF_RIVAL)):
        if time.monotonic() > until:
            sys.exit("bench: the rival does not start")
        time.sleep(1)


def _wait_free(*ports: int) -> None:
    """Another comparison on this machine has the same rival: wait for its end."""
    until = time.monotonic() + _OTHERS_S
    while taken := [port for port in ports if _listens(port)]:
        if time.monotonic() > until:
            sys.exit(f"bench: somebody else listens on {', '.join(map(str, taken))}")
        time.sleep(1)


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


async def _make_users(url: str) -> None:
    store = Store(url)
    async with store.begin("bench.users") as conn:
        await accounts.create_domain(conn, DOMAIN)
        for n in range(1, USERS + 1):
            account = await accounts.create(conn, user(n))
            await set_password(conn, account, PASSWORD)
            # The driver looks for all mail in INBOX, where the rival puts what its engines take for junk as well.
            [junk] = [each.fid for each in await folders.list_folders(conn, account) if each.role == "junk"]
            await folders.delete(conn, account, junk)
    await store.close()
