"""The one list: which services run on this machine and on which ports."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from services.dev.trouble import Trouble

DEFAULT_BASE = 2000
POSTGRES_OFFSET = 632
NATS_OFFSET = 622
DNS_OFFSET = 653
MX_OFFSET = 525
CLAMD_OFFSET = 310
RSPAMD_OFFSET, RSPAMD_CONTROLLER_OFFSET = 333, 334
MOST_REPLICAS = 16
# The health ports of a service's second process lie behind all others, those of its third behind these, and so on.
SECOND_OFFSET, NEXT_OFFSET = 60, 10
HOSTNAME = "localhost"
LISTEN_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Door:
    """A port that a service listens on: `key` is its settings name, the number is `base + offset`."""

    name: str
    key: str
    offset: int
    for_mail_clients: bool = True
    """A mail client is configured with it, so autoconfig must know it."""


@dataclass(frozen=True, slots=True)
class Service:
    """One `python -m services.<name>`."""

    name: str
    health_offset: int
    doors: tuple[Door, ...] = ()
    behind: bool = False
    """Doors hand work to it, so it is stopped after them."""
    module: str = ""

    @property
    def runs(self) -> str:
        return self.module or f"services.{self.name}"


SERVICES = (
    Service("filter", 601, behind=True),
    Service("delivery", 602, behind=True),
    Service(
        "submission",
        603,
        (Door("submission", "SUBMISSION_PORT", 587), Door("submissions", "SUBMISSION_TLS_PORT", 465)),
    ),
    Service("mxrouter", 604, (Door("smtp", "MXROUTER_PORT", MX_OFFSET, for_mail_clients=False),)),
    Service("imap", 605, (Door("imap", "IMAP_PORT", 143), Door("imaps", "IMAP_TLS_PORT", 993))),
    Service("pop", 606, (Door("pop3", "POP_PORT", 110), Door("pop3s", "POP_TLS_PORT", 995))),
    Service(
        "sync",
        607,
        (
            Door("http", "SYNC_PORT", 80, for_mail_clients=False),
            Door("https", "SYNC_TLS_PORT", 443, for_mail_clients=False),
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class Process:
    """One of the processes that a service runs as. A lone one is called as its service, of several all have numbers."""

    service: Service
    number: int = 1
    alone: bool = True

    @property
    def name(self) -> str:
        return self.service.name if self.alone else f"{self.service.name}-{self.number}"

    @property
    def health_offset(self) -> int:
        further = self.number - 2
        return self.service.health_offset + (SECOND_OFFSET + NEXT_OFFSET * further if further >= 0 else 0)


@dataclass(frozen=True, slots=True)
class Plan:
    """Services at a port base: everything that has a number derives from here.

    The processes of a service share its doors and have a health port each. That one is shared with nobody and taken
    first, so two platforms that were started at once cannot end up behind one door.
    """

    base: int = DEFAULT_BASE
    services: tuple[Service, ...] = SERVICES
    replicas: Mapping[str, int] = field(default_factory=dict)
    """How many processes a service runs as, where it is not one."""

    def processes(self) -> tuple[Process, ...]:
        """Every process of every service."""
        return tuple(
            Process(service, number, alone=of == 1)
            for service in self.services
            for of in (self.replicas.get(service.name, 1),)
            for number in range(1, of + 1)
        )

    @property
    def postgres_port(self) -> int:
        return self.base + POSTGRES_OFFSET

    @property
    def nats_port(self) -> int:
        return self.base + NATS_OFFSET

    @property
    def dns_port(self) -> int:
        return self.base + DNS_OFFSET

    @property
    def mx_port(self) -> int:
        """Where a platform at this base takes mail of other servers, whichever services run."""
        return self.base + MX_OFFSET

    @property
    def clamd_port(self) -> int:
        return self.base + CLAMD_OFFSET

    @property
    def rspamd_ports(self) -> tuple[int, int]:
        """The worker's and the controller's."""
        return self.base + RSPAMD_OFFSET, self.base + RSPAMD_CONTROLLER_OFFSET

    def ports(self, process: Process) -> dict[str, int]:
        """The process's ports by door name, `health` last."""
        doors = {door.name: self.base + door.offset for door in process.service.doors}
        return {**doors, "health": self.base + process.health_offset}

    def doors(self) -> dict[str, int]:
        """Every door a client of the platform may use, by name."""
        return {door.name: self.base + door.offset for service in self.services for door in service.doors}

    def wanted(
        self, postgres: bool, nats: bool, dns: bool, engines: Collection[str] = ()
    ) -> Iterator[tuple[str, str, int]]:
        """(who, what for, port) for every port that has to be free before the start."""
        if postgres:
            yield "postgres", "postgres", self.postgres_port
        if nats:
            yield "nats", "nats", self.nats_port
        if dns:
            yield "dns", "dns", self.dns_port
        if "clamd" in engines:
            yield "clamd", "clamd", self.clamd_port
        if "rspamd" in engines:
            yield "rspamd", "rspamd", self.rspamd_ports[0]
            yield "rspamd", "controller", self.rspamd_ports[1]
        for process in self.processes():
            for name, port in self.ports(process).items():
                if name == "health" or process.number == 1:
                    yield process.name, name, port

    def environment(self, process: Process) -> dict[str, str]:
        """The settings that follow from the plan for one process: its own ports, and all of them for autoconfig."""
        env = {"POSTA_HEALTH_PORT": str(self.base + process.health_offset)}
        if not process.alone:
            env["POSTA_REUSE_PORT"] = "true"
        for each in self.services:
            for door in each.doors:
                number = str(self.base + door.offset)
                env[f"POSTA_{door.key}"] = number
                if door.for_mail_clients:
                    env[f"POSTA_SYNC_{door.key}"] = number
        return env

    def chosen(self, only: str = "", without: str = "") -> "Plan":
        """The same plan with only the named services, or without the named ones (comma-separated).

        Raises Trouble for a name that is no service.
        """
        names = {service.name for service in self.services}
        kept = _names(only, names) or names
        dropped = _names(without, names)
        services = tuple(each for each in self.services if each.name in kept and each.name not in dropped)
        return replace(self, services=services)

    def scaled(self, words: str) -> "Plan":
        """The same plan with as many processes as `words` say: `imap=2,delivery=3`.

        Raises Trouble, as for wrong words, where they say something else or name a service that does not run.
        """
        names = [service.name for service in self.services]
        replicas: dict[str, int] = {}
        for word in words.replace(",", " ").split():
            name, _, number = word.partition("=")
            if not number.isascii() or not number.isdigit() or not 1 <= int(number) <= MOST_REPLICAS:
                raise _wrong(f"expected SERVICE=NUMBER with a number from 1 to {MOST_REPLICAS}, got {word!r}")
            if name not in names:
                raise _wrong(f"no service that runs is called {name!r}; there are {', '.join(sorted(names))}")
            if name in replicas:
                raise _wrong(f"{name} is named twice")
            replicas[name] = int(number)
        return replace(self, replicas=replicas)


def _wrong(line: str) -> Trouble:
    return Trouble(f"--replicas: {line}", exit_code=2)


def _names(words: str, known: set[str]) -> set[str]:
    named = {word for word in words.replace(",", " ").split() if word}
    if unknown := sorted(named - known):
        raise Trouble(f"no service is called {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    return named


def base_of(env: Mapping[str, str]) -> int:
    """POSTA_PORT_BASE, or 2000. Raises Trouble where some port would not fit below 65536."""
    text = env.get("POSTA_PORT_BASE", "") or str(DEFAULT_BASE)
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 64000:
        raise Trouble(f"POSTA_PORT_BASE: expected a number from 1 to 64000, got {text!r}")
    return int(text)
