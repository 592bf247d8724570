"""Runs the whole platform: the embedded servers, the migrations, every service; and ends it in order."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import services
from services.dev import control, engines, nats, postgres, probe
from services.dev.child import Child, Program, State
from services.dev.home import Home, write
from services.dev.plan import HOSTNAME, LISTEN_HOST, Plan, Service
from services.dev.process import clear, command_of, dies_with_parent, started_at, taken, wait_gone
from services.dev.trouble import Trouble

# `python -m` looks for packages here first: the code that runs posta is the code the services run.
CLONE = Path(services.__file__ or ".").resolve().parent.parent
PREPARE = ("-m", "services.dev.prepare")
START_S = 60.0
GRACE_S = 8
ROTATE_S = 30.0
OF_THE_DEV_ROOM = ("POSTA_HOME", "POSTA_PORT_BASE", "POSTA_ENGINES")


class Supervisor:
    """One platform in one home. `env` is what the caller was given; `say(line)` tells a person what happens.

    POSTA_DATABASE_URL, POSTA_NATS_URL and POSTA_DNS_SERVERS in `env` name existing servers that take the place of the
    embedded ones.
    """

    def __init__(
        self,
        home: Home,
        plan: Plan,
        env: Mapping[str, str],
        say: Callable[[str], None],
        prepare: tuple[str, ...] = PREPARE,
    ) -> None:
        self.home = home
        self.plan = plan
        self.children: dict[str, Child] = {}
        self.urls: dict[str, str] = {}
        self._env = dict(env)
        self._given: Mapping[str, str] = {}
        self._say = say
        self._prepare_by = prepare
        self._stop = asyncio.Event()
        self._phase = "starting"
        self._began_at = time.time()

    async def run(self, on_ready: Callable[["Supervisor"], asyncio.Task[None] | None]) -> None:
        """Start everything, call `on_ready`, stay until told to stop by a signal or a verb, stop everything.

        Raises Trouble where the start fails; what was started is stopped by then. The task that `on_ready` may return
        is cancelled at the stop.
        """
        self.home.prepare()
        with self.home.held():
            server = await control.serve(self.home, self._answer)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                loop.add_signal_handler(number, self._signalled)
            rotating = asyncio.create_task(self._rotate())
            try:
                if await self._unless_stopped(self._start()):
                    self._phase = "ready"
                    self._changed()
                    task = on_ready(self)
                    await self._stop.wait()
                    if task is not None:
                        task.cancel()
                        await asyncio.wait((task,))
            finally:
                self._phase = "stopping"
                rotating.cancel()
                await self._wind_down()
                control.close(self.home, server)
                self._phase = "down"
                self._changed()

    def stop(self) -> None:
        """Let `run` come to its end, as a signal does."""
        self._stop.set()

    def state(self) -> dict[str, Any]:
        """What `posta status --json` prints."""
        return {
            "home": str(self.home.root),
            "pid": os.getpid(),
            "phase": self._phase,
            "ready": self._phase == "ready" and all(each.state is State.READY for each in self.children.values()),
            "began_at": self._began_at,
            "doors": self.plan.doors(),
            "urls": self.urls,
            "services": {name: _facts(child) for name, child in self.children.items()},
        }

    # ---- the start ---------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        database, bus = self._env.get("POSTA_DATABASE_URL", ""), self._env.get("POSTA_NATS_URL", "")
        await asyncio.to_thread(_bury, self.home.last_state())
        server = None if database else await asyncio.to_thread(postgres.embedded, self.home, self.plan.postgres_port)
        if server is not None:
            await server.clear()
        resolvers = self._env.get("POSTA_DNS_SERVERS", "")
        programs = engines.chosen(self.plan, self._env)
        examining = await asyncio.to_thread(engines.embedded, self.home, self.plan, programs, resolvers)
        for engine in examining:
            await clear(engine.room.folder)
        if lines := taken(LISTEN_HOST, self.plan.wanted(not database, not bus, not resolvers, programs)):
            lines.append("free them, or set POSTA_PORT_BASE to a number other than " + str(self.plan.base))
            raise Trouble("\n".join(lines))
        broker = None if bus else nats.embedded(self.home, self.plan.nats_port)
        env = self._environment(server.url if server else database, broker.url if broker else bus)
        for engine in examining:
            # Not waited for yet: what they load they load beside everything else.
            self._add(engine.program()).start()
            env |= engine.settings
        up = asyncio.Event()
        preparing = asyncio.create_task(self._prepare(env, up))
        try:
            if server is not None:
                await asyncio.to_thread(server.prepare)
            if broker is not None:
                broker.prepare()
            servers = [each.program() for each in (server, broker) if each is not None]
            await self._together([self._add(each) for each in (servers if resolvers else [*servers, self._names()])])
            up.set()
            env |= await preparing
        finally:
            preparing.cancel()
            await asyncio.gather(preparing, return_exceptions=True)
        self._given = env
        doors = [self._add(self._program(service, env)) for service in self.plan.services]
        await self._together([*(self.children[name] for name in programs), *doors])

    def _add(self, program: Program) -> Child:
        child = self.children[program.name] = Child(program, self._changed, self._say)
        return child

    async def _together(self, children: list[Child]) -> None:
        for child in children:
            child.start()
        async with asyncio.TaskGroup() as group:
            for child in children:
                group.create_task(self._ready(child))

    async def _ready(self, child: Child) -> None:
        await child.until_ready(_patience_s(child))
        ports = ", ".join(f"{name} {port}" for name, port in child.program.ports.items() if name != "health")
        self._say(f"{child.program.name} is ready" + (f" ({ports})" if ports else ""))

    def _environment(self, database: str, bus: str) -> dict[str, str]:
        env = {name: value for name, value in self._env.items() if name not in OF_THE_DEV_ROOM}
        for name, value in {
            "POSTA_DATABASE_URL": database,
            "POSTA_NATS_URL": bus,
            "POSTA_HOSTNAME": HOSTNAME,
            "POSTA_LISTEN_HOST": LISTEN_HOST,
            "POSTA_GRACE_S": str(GRACE_S),
            "POSTA_DNS_SERVERS": f"{LISTEN_HOST}:{self.plan.dns_port}",
            "POSTA_RELAY_PORT": str(self.plan.mx_port),
            "POSTA_SYNC_ADMIN_TOKEN": self.home.secret("admin-token"),
            "POSTA_SEAL_SECRET": self.home.secret("seal-secret"),
        }.items():
            env.setdefault(name, value)
        self.urls |= {"database": database, "nats": bus, "admin_token_file": str(self.home.root / "admin-token")}
        doors = self.plan.doors()
        if "http" in doors:
            self.urls |= {"http": f"http://127.0.0.1:{doors['http']}", "https": f"https://localhost:{doors['https']}"}
        return env

    def _names(self) -> Program:
        """The test DNS. Beside it no other is asked: what its zones do not have does not exist."""
        port = self.plan.dns_port

        async def ready() -> str:
            return await probe.dns(port)

        return Program(
            name="dns",
            argv=(sys.executable, "-m", "services.dev.dns", str(port)),
            env={**self._env, "POSTA_HOME": str(self.home.root)},
            ports={"dns": port},
            log=self.home.log_of("dns"),
            ready=ready,
            cwd=CLONE,
        )

    def _program(self, service: Service, env: Mapping[str, str]) -> Program:
        ports = self.plan.ports(service)

        async def ready() -> str:
            return await probe.readyz(ports["health"])

        return Program(
            name=service.name,
            argv=(sys.executable, "-m", service.runs),
            env={**env, **self.plan.environment(service)},
            log=self.home.log_of(service.name),
            ready=ready,
            ports=ports,
            cwd=CLONE,
            # The service's own grace is shorter, so it is killed only when it does not keep it.
            stop=((signal.SIGTERM, GRACE_S + 4.0),),
        )

    async def _prepare(self, env: Mapping[str, str], up: asyncio.Event) -> dict[str, str]:
        """Certificate, schema and demo accounts, made by a process of their own; the settings that come of it.

        Of their own, because what it takes to make them would otherwise stay in this process's memory for good. It
        loads while the servers start, and begins with the store when they are `up`.
        """
        if not self._prepare_by:
            return {}
        path = self.home.log_of("prepare")
        with path.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *self._prepare_by,
                env={**env, "POSTA_HOME": str(self.home.root)},
                cwd=CLONE,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                preexec_fn=dies_with_parent(signal.SIGKILL),
            )
        try:
            await up.wait()
            said, _ = await process.communicate(b"go\n")
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if process.returncode != 0:
            raise Trouble(f"cannot prepare the start: {_last_line(path).removeprefix('posta: ')} (log: {path})")
        made = {str(name): str(value) for name, value in json.loads(said).items()}
        if ca := made.pop("ca", ""):
            self.urls["ca"] = ca
        self._say("the store is at its newest revision")
        return made

    # ---- the stop ----------------------------------------------------------------------------------------------

    def _signalled(self) -> None:
        if self._stop.is_set():
            # Asked twice: everything dies with this process, and every part recovers from that.
            os._exit(1)
        self._stop.set()

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> bool:
        """Whether `work` came to its end before a stop was asked for. Raises what it raises."""
        doing, stopping = asyncio.create_task(work), asyncio.create_task(self._stop.wait())
        await asyncio.wait((doing, stopping), return_when=asyncio.FIRST_COMPLETED)
        finished = doing.done()
        for each in (doing, stopping):
            each.cancel()
        await asyncio.wait((doing, stopping))
        if finished and (error := doing.exception()):
            raise _first(error)
        return finished

    async def _wind_down(self) -> None:
        self._changed()
        behind = {service.name for service in self.plan.services if service.behind}
        doors = {service.name for service in self.plan.services} - behind
        # A door that finishes a message still asks the filter, and whoever is last writes to Postgres.
        for wave in (doors, behind, {"nats", "dns", *engines.ENGINES}, {"postgres"}):
            children = [child for name, child in self.children.items() if name in wave]
            await asyncio.gather(*(child.stop() for child in children))

    async def _rotate(self) -> None:
        while True:
            await asyncio.sleep(ROTATE_S)
            for child in self.children.values():
                child.rotate_log()

    # ---- verbs and state ---------------------------------------------------------------------------------------

    async def _answer(self, verb: str, arguments: dict[str, Any]) -> dict[str, Any]:
        match verb:
            case "status":
                return self.state()
            case "environment":
                return {name: value for name, value in self._given.items() if name.startswith("POSTA_")}
            case "down":
                self._stop.set()
                return {"pid": os.getpid()}
            case "stop" | "start":
                child = self.children.get(str(arguments.get("service")))
                if child is None:
                    raise Trouble(
                        f"no service is called {arguments.get('service')}; there are {', '.join(self.children)}"
                    )
                if verb == "stop":
                    await child.stop()
                else:
                    child.start()
                    await child.until_ready(_patience_s(child))
                return _facts(child)
            case _:
                raise Trouble(f"the running platform does not know the verb {verb}")

    def _changed(self) -> None:
        state = self.state()
        for name, child in self.children.items():
            path = self.home.run / f"{name}.pid"
            if child.pid:
                write(path, f"{child.pid}\n")
            else:
                path.unlink(missing_ok=True)
        write(self.home.state, json.dumps(state, indent=1) + "\n")


def _patience_s(child: Child) -> float:
    return engines.START_S if child.program.name in engines.ENGINES else START_S


def _facts(child: Child) -> dict[str, Any]:
    return {
        "state": child.state.value,
        "reason": child.reason,
        "pid": child.pid or None,
        "began_at": child.began_at or None,
        "uptime_s": round(time.time() - child.began_at, 1) if child.began_at else None,
        "restarts": child.restarts,
        "ports": dict(child.program.ports),
        "log": str(child.program.log),
    }


def _bury(state: Mapping[str, Any]) -> None:
    """End what an earlier platform of this home may have left, where the kernel did not do it for us.

    A pid counts only together with the time its process began. Postgres has its own way (`Postgres.clear`).
    """
    for name, facts in (state.get("services") or {}).items():
        pid, began_at = facts.get("pid"), facts.get("began_at")
        if name == "postgres" or not pid or not began_at or abs(started_at(pid) - began_at) > 0.5:
            continue
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
        if not wait_gone(pid, 5.0):
            raise Trouble(f"an earlier {name} (pid {pid}, {command_of(pid)}) does not end")


def _last_line(path: Path) -> str:
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()[:400] if lines else "it said nothing"


def _first(error: BaseException) -> BaseException:
    """The one error that matters of a group whose other members were cancelled for it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
