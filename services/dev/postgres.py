"""The embedded Postgres: makes its cluster on the first run, says how it is started and when it is ready."""

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from services.dev.child import Program
from services.dev.home import LONGEST_SOCKET_PATH, Home, user_name, write
from services.dev.place import Place, settle, wipe
from services.dev.process import command_of, standing_in, wait_gone
from services.dev.trouble import Trouble

USER = DATABASE = "posta"
HOST = "127.0.0.1"

# What 250 promises rests on the first three. The rest suits one machine: no parallel plans or compiled queries for
# statements that touch a few rows, checkpoints far apart, queues (spool, recipients) swept as often as they turn over.
SETTINGS = """\
fsync = on
synchronous_commit = on
full_page_writes = on
wal_level = minimal
max_wal_senders = 0
wal_compression = on
min_wal_size = 256MB
max_wal_size = 2GB
checkpoint_timeout = 15min
shared_buffers = 128MB
work_mem = 8MB
max_connections = 200
io_method = sync
jit = off
max_parallel_workers_per_gather = 0
max_logical_replication_workers = 0
random_page_cost = 1.1
autovacuum_naptime = 15s
autovacuum_max_workers = 2
autovacuum_vacuum_scale_factor = 0.05
autovacuum_analyze_scale_factor = 0.05
autovacuum_vacuum_insert_scale_factor = 0.1
log_destination = stderr
logging_collector = off
log_checkpoints = off
log_line_prefix = '%m [%p] '
log_min_duration_statement = 2s
password_encryption = scram-sha-256
timezone = UTC
log_timezone = UTC
lc_messages = C
"""


@dataclass(frozen=True, slots=True)
class Embedded:
    """One embedded server of one home."""

    home: Home
    place: Place
    port: int

    @property
    def url(self) -> str:
        return f"postgresql://{USER}:{quote(self.home.secret('postgres-password'))}@{HOST}:{self.port}/{DATABASE}"

    def prepare(self) -> None:
        """Make the cluster unless it is there, write its settings.

        Raises Trouble where the data are another version's or another user's.
        """
        data = self.place.data
        if (data / "PG_VERSION").exists():
            self._check(data)
        else:
            self._found(data)
        path = self.place.sockets / f".s.PGSQL.{self.port}"
        sockets = self.place.sockets if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH else ""
        settings = (
            f"{SETTINGS}listen_addresses = '{HOST}'\nport = {self.port}\n"
            f"unix_socket_directories = '{sockets}'\nunix_socket_permissions = 0700\n"
        )
        self._write(data / "postgresql.conf", settings)
        # Over TCP anyone on the machine may knock; the socket's folder admits Postgres's own user (and root) only.
        self._write(data / "pg_hba.conf", f"local all all trust\nhost all all {HOST}/32 scram-sha-256\n")

    def program(self) -> Program:
        """How the supervisor runs it."""
        return Program(
            name="postgres",
            argv=(str(self.place.binaries / "postgres"), "-D", str(self.place.data)),
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            ports={"postgres": self.port},
            log=self.home.log_of("postgres"),
            ready=self.ready,
            before=self.clear,
            cwd=self.place.root,
            owner=self.place.owner,
            # Fast shutdown; then immediate, which recovers at the next start. Postgres must never meet SIGKILL first:
            # its own children would outlive it for a moment and hold its shared memory.
            stop=((signal.SIGINT, 30.0), (signal.SIGQUIT, 5.0)),
            with_parent=signal.SIGINT,
        )

    async def ready(self) -> str:
        """Why it does not take connections, empty when it does."""
        return self.said()

    def said(self) -> str:
        """The same, by its own word in the last line of its lock file."""
        try:
            lines = (self.place.data / "postmaster.pid").read_text().split("\n")
        except OSError:
            return "starting"
        said = lines[7].strip() if len(lines) > 7 else ""
        return "" if said == "ready" else said or "starting"

    async def clear(self) -> None:
        """Make way for a start: end what an earlier Postgres left running on these data, then drop its lock.

        Left alone, the lock names a pid that may by now be another program's (in a container it usually is), and
        Postgres would refuse to start. It is only dropped once no process stands in the data folder: the lock is also
        what keeps a new Postgres from starting beside a dead one's children.
        Raises Trouble where they do not end.
        """
        lock, data = self.place.data / "postmaster.pid", self.place.data.resolve()
        try:
            lead = int(lock.read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return
        for number, wait_s in ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)):
            left = await asyncio.to_thread(standing_in, data)
            if lead in left:
                os.kill(lead, number)
            # Without the lead its children see that they are orphans, and end.
            gone = [await asyncio.to_thread(wait_gone, pid, wait_s) for pid in left]
            if all(gone):
                lock.unlink(missing_ok=True)
                return
        raise Trouble(f"an earlier postgres (pid {lead}, {command_of(lead)}) does not end")

    def _check(self, data: Path) -> None:
        made_by = (data / "PG_VERSION").read_text().strip()
        brought = self._version().split(".")[0]
        if made_by != brought:
            raise Trouble(
                f"{data} was made by Postgres {made_by}, this installation brings {brought}: move the folder away, or"
                f" dump it with {made_by} and load it again"
            )
        owner, runs_as = data.stat().st_uid, self.place.owner.uid if self.place.owner else os.geteuid()
        if owner != runs_as:
            raise Trouble(
                f"{data} belongs to {user_name(owner)}, but Postgres would run as {user_name(runs_as)}: run posta as"
                f" {user_name(owner)}, or set POSTA_HOME to another folder"
            )

    def _found(self, data: Path) -> None:
        if data.exists() and any(data.iterdir()):
            # An initdb that was cut short left no PG_VERSION worth trusting; anything else here is not ours to delete.
            raise Trouble(f"{data} holds files but no Postgres cluster: move the folder away")
        fresh = self.place.root / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        self.place.folder(fresh)
        password = self.place.sockets / "password"
        try:
            self._write(password, self.home.secret("postgres-password") + "\n")
            self._run(
                "initdb",
                *("-D", str(fresh), "--username", USER, "--pwfile", str(password), "--auth", "scram-sha-256"),
                # The same order of strings on every machine, whatever locales it has.
                *("--encoding", "UTF8", "--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
                *("--no-sync", "--no-instructions"),
            )
        finally:
            password.unlink(missing_ok=True)
        self._run("postgres", "--single", "-D", str(fresh), "postgres", stdin=f"CREATE DATABASE {DATABASE}\n")
        # Once, for both steps; data.new becomes data only when all of it is on the disk.
        self._run("initdb", "-D", str(fresh), "--sync-only")
        if data.exists():
            data.rmdir()
        os.replace(fresh, data)

    def _version(self) -> str:
        found = re.search(r"(\d+)\.(\d+)", self._run("postgres", "--version"))
        return found.group(0) if found else ""

    def _write(self, path: Path, text: str) -> None:
        write(path, text, owner=self.place.owner)

    def _run(self, name: str, *arguments: str, stdin: str = "") -> str:
        owner = self.place.owner
        try:
            done = subprocess.run(
                (str(self.place.binaries / name), *arguments),
                input=stdin,
                capture_output=True,
                text=True,
                cwd=self.place.root,
                env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
                user=owner.uid if owner else None,
                group=owner.gid if owner else None,
                extra_groups=() if owner else None,
                timeout=120,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Trouble(f"cannot run {name}: {error}") from None
        if done.returncode != 0:
            said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
            raise Trouble(f"{name} failed: {said[-1] if said else f'exit code {done.returncode}'}")
        return done.stdout


def embedded(home: Home, port: int) -> Embedded:
    """The embedded Postgres of this home, its place settled. Raises Trouble where it cannot be had."""
    return Embedded(home, settle(home), port)


class Postgres:
    """A server of its own for tests: `start()`, use `url`, `stop()`, and nothing of it is left.

    `port` 0 takes a free one. It dies with the process that started it.
    """

    def __init__(self, folder: Path, port: int = 0) -> None:
        self._home = Home(folder.resolve())
        self._home.prepare()
        self._server = embedded(self._home, port or _free_port())
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self._server.url

    def start(self, timeout_s: float = 30.0) -> None:
        """Return when it takes connections. Raises Trouble where it does not get there."""
        self._server.prepare()
        program = self._server.program()
        with program.log.open("ab") as log:
            self._process = subprocess.Popen(program.argv, **program.start_with(log))
        deadline = time.monotonic() + timeout_s
        while reason := self._server.said():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise Trouble(f"postgres is not ready ({reason}); its log is {program.log}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it and delete its data."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(30)
        wipe(self._home)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
