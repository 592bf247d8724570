"""The one list: which services run on this machine and on which ports."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from services.dev.trouble import Trouble

DEFAULT_BASE = 2000
POSTGRES_OFFSET = 632
NATS_OFFSET = 622
DNS_OFFSET = 653
MX_OFFSET = 525
CLAMD_OFFSET = 310
RSPAMD_OFFSET, RSPAMD_CONTROLLER_OFFSET = 333, 334
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
class Plan:
    """Services at a port base: everything that has a number derives from here."""

    base: int = DEFAULT_BASE
    services: tuple[Service, ...] = SERVICES

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

    def ports(self, service: Service) -> dict[str, int]:
        """The service's ports by door name, `health` last."""
        doors = {door.name: self.base + door.offset for door in service.doors}
        return {**doors, "health": self.base + service.health_offset}

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
        for service in self.services:
            for name, port in self.ports(service).items():
                yield service.name, name, port

    def environment(self, service: Service) -> dict[str, str]:
        """The settings that follow from the plan for one service: its own ports, and all of them for autoconfig."""
        env = {"POSTA_HEALTH_PORT": str(self.base + service.health_offset)}
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
        return Plan(self.base, services)


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
