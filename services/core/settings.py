"""Everything that can be set, in one frozen value that a service's `__main__` reads once.

A key is one line in its group below; its environment name follows from the path (`imap.tls_port` is
`POSTA_IMAP_TLS_PORT`), the TOML file named by `POSTA_CONFIG` mirrors the groups, the environment wins over the file.
There is no instance at module level: whoever needs a setting is given it.
"""

import os
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal, NoReturn

from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails

from services.core import pooler
from services.core.subjects import Keeping

PREFIX = "POSTA_"
# Read by `posta up` and by `load` itself; a service that finds them in its environment has nothing to say about them.
FOR_THE_DEV_ROOM = frozenset({"POSTA_HOME", "POSTA_CONFIG", "POSTA_PORT_BASE", "POSTA_ENGINES"})
LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
# Attachments that a mail client or a shell starts on a double click.
DANGEROUS = """
    ade adp app bat chm cmd com cpl dll exe hta inf ins isp jar jse lib lnk mde msc msi msp mst pif ps1 reg scf scr sct
    sys url vb vbe vbs vxd wsc wsf wsh
"""


def _words(value: object) -> object:
    return value.replace(",", " ").split() if isinstance(value, str) else value


Port = Annotated[int, Field(ge=0, le=65535, description="0 = not listening")]
Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Ceiling = Annotated[int, Field(ge=0, description="0 = no limit")]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], BeforeValidator(_words)]


class _Group(BaseModel):
    # Input is hidden because pydantic would otherwise print a refused password or URL in its message.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)


class Database(_Group):
    url: str = Field(default="", repr=False)
    """With `?prepared_statements=off` where it leads through a pooler that carries none over."""
    direct_url: str = Field(default="", repr=False)
    """Past a pooler that shares connections between transactions, for what needs a session; empty: `url`."""
    read_only_url: str = Field(default="", repr=False)
    """A replica, which may be behind: message bodies and lists for people are read there; empty: all from `url`."""
    pool: Count = 8
    connect_timeout_s: Seconds = 5
    statement_timeout_s: Seconds = 60
    """Of what a message or a reader waits for; upkeep has no limit."""
    durable_staging: bool = False
    """True where blobs live on another Postgres than the spool: staging then commits synchronously."""

    @field_validator("url", "direct_url")
    @classmethod
    def _holds_together(cls, url: str, known: ValidationInfo) -> str:
        _, prepares = pooler.split(url)
        if known.field_name == "direct_url":
            # A session's lock taken through a pooler stays with a connection that is somebody else's next.
            if not prepares:
                raise ValueError("expected a way past the pooler, prepared_statements is off in it")
            if not url and not pooler.split(known.data.get("url", ""))[1]:
                raise ValueError("expected a way past the pooler, prepared_statements is off in url")
        return url


class Nats(_Group):
    url: str = Field(default="nats://127.0.0.1:4222", repr=False)
    replicas: Count = 1
    """NATS servers that keep each stream."""
    trace_days: Count = 7
    """How long `posta trace` knows a message."""
    trace_size: ByteSize = ByteSize(1024**3)
    """What the trace may take of NATS's disk; the oldest goes first."""

    @property
    def keeping(self) -> Keeping:
        return Keeping(self.replicas, self.trace_days, self.trace_size)


class Dns(_Group):
    servers: Words = ()
    """`host` or `host:port` of resolvers; none: the machine's own. DANE believes their word about DNSSEC."""
    timeout_s: Seconds = 5


class Log(_Group):
    level: Literal["debug", "info", "warning", "error"] = "info"


class Otlp(_Group):
    """Traces for an OpenTelemetry collector."""

    endpoint: str = ""
    """`http://collector:4318`: where OTLP is taken over HTTP; empty: nothing is exported."""
    share: Annotated[float, Field(ge=0, le=1)] = 1
    """Of the messages that come in, how many are traced."""


class Health(_Group):
    port: Port = 9090


class Tls(_Group):
    cert: Path | None = None
    key: Path | None = None
    domains: Annotated[tuple[Path, ...], BeforeValidator(_words)] = ()
    """Folders with tls.crt and tls.key of further certificates, shown to clients that ask for a name of theirs."""


class Proxy(_Group):
    networks: Networks = ()
    """PROXY protocol is required from these networks and refused from all others."""


class Limits(_Group):
    message_size: ByteSize = ByteSize(50 * 1024 * 1024)
    recipients: Count = 1000
    exempt: Networks = LOOPBACK
    """Clients whose connections are not counted, and of whom the MX door asks neither name nor patience."""


class Login(_Group):
    plaintext_auth: bool = False
    cache_s: Seconds = 600
    window_s: Seconds = 600
    failures_per_account: Count = 10
    failures_per_network: Count = 50
    max_delay_s: Seconds = 10


class Spool(_Group):
    sweep_s: Seconds = 10
    group_size: Count = 64
    """Accepts of one process that share a commit, at most."""


class Submission(_Group):
    port: Port = 587
    tls_port: Port = 465
    require_known_from: bool = True
    recipients_per_hour: Ceiling = 1000
    """Of one account; past it 450 until the hour is over. An account may have limits of its own."""
    recipients_per_day: Ceiling = 10_000
    pause_recipients: Ceiling = 10_000
    """An account that offers more than that in an hour, what was put off included, is paused for sending."""
    pause_bad: Ceiling = 10
    """So is one of whose messages that many in an hour are spam or carry a virus."""
    max_connections: Count = 2000
    max_per_ip: Ceiling = 0


class Mxrouter(_Group):
    port: Port = 25
    max_connections: Count = 2000
    max_per_ip: Ceiling = 50
    max_per_network: Ceiling = 200
    """Connections at once from one /24 or /48."""
    max_per_minute: Ceiling = 0
    """New connections from one /24 or /48."""
    messages_per_minute: Ceiling = 0
    """Messages from one /24 or /48, in one pod; whoever sends more is told to come again."""
    require_helo_name: bool = False
    """HELO must be a full name or an address literal, and not ours."""
    require_rdns: bool = False
    """A client's address must have a name that points back to it."""
    require_sender_domain: bool = False
    """The domain in MAIL FROM must exist and take mail."""
    greylist_s: Annotated[float, Field(ge=0)] = 0
    """How long a stranger's first try is put off; 0 = no greylisting."""


class Relay(_Group):
    enabled: bool = True
    """False: this mxrouter only listens. With `mxrouter.port` 0 it only relays."""
    slots: Count = 400
    """First attempts in progress at once; a quarter of them is kept for destinations that have answered of late."""
    retry_slots: Count = 100
    connections: Count = 20
    """To one destination at once, from all relay pods together."""
    per_minute: Ceiling = 0
    """Messages to one destination, from all relay pods together."""
    memory: ByteSize = ByteSize(128 * 1024 * 1024)
    """Octets of messages in hand at once, a pod makes up to four copies; what is over 256 KiB waits for room."""
    poll_s: Seconds = 2
    lease_s: Annotated[float, Field(ge=3)] = 120
    """What a killed pod had in hand is taken up by another after that time."""
    warn_after_s: Seconds = 4 * 3600
    give_up_after_s: Seconds = 5 * 86_400
    port: Annotated[int, Field(ge=1, le=65535)] = 25
    """Where the MX hosts of other domains listen; a platform of one machine mails another one elsewhere."""
    ourselves: Words = ()
    """Names and addresses at which the world reaches our MX, besides `hostname`: mail for them would loop."""
    ipv6: bool = True
    connect_timeout_s: Seconds = 30
    command_timeout_s: Seconds = 300
    """RFC 5321 4.5.3.2: five minutes for a reply to most commands."""
    message_timeout_s: Seconds = 600
    """RFC 5321 4.5.3.2.6: ten minutes for the reply to a message, or it comes again."""
    recipients_at_once: Count = 50
    """Of one transaction; more of a destination follow in further ones."""
    reuse_idle_s: Annotated[float, Field(ge=0)] = 5
    """A connection waits so long for the next message of its destination; 0 = closed after each."""
    reuse_messages: Count = 100
    dane: bool = True
    mta_sts: bool = True
    tls_reports: bool = True
    """Domains that ask for it are told daily how TLS with them went (RFC 8460)."""
    private_https: bool = False
    """MTA-STS policies are fetched from, and reports sent to, web servers at private addresses too."""
    ca: Path | None = None
    """PEM file of CAs that are trusted besides the system's, for smarthosts, MTA-STS and TLS reports."""
    discard_ehlo_keywords: Words = ()
    """Extensions that are not used although servers offer them, such as CHUNKING."""


class Dkim(_Group):
    key_secret: SecretStr | None = None
    """Encrypts private keys in the store; without it they are kept as they are. Services and `posta` need the same."""


class Srs(_Group):
    secret: SecretStr | None = None
    """Proves that a bounce answers a forward of ours; without it the store makes one for all processes."""


class Seal(_Group):
    secret: SecretStr | None = None
    """Seals the passwords of smarthosts in the store; without it none is kept. Services and `posta` need the same."""
    former: SecretStr | None = None
    """The one before, while `posta route seal` has not sealed all of them anew."""


class Scan(_Group):
    deadline_s: Seconds = 30


class Filter(_Group):
    clamd: Words = ()
    """`host:port` or the path of a Unix socket, several for several daemons."""
    rspamd: Words = ()
    """The same, for rspamd's normal workers."""
    rspamd_controller: Words = ()
    """The same, for its controllers: what users move into and out of Junk is taught there."""
    rspamd_password: SecretStr | None = None
    rspamd_max_size: ByteSize = ByteSize(50 * 1024 * 1024)
    """Larger messages are not examined for spam, and say so."""
    optional: Words = ()
    """Engines, by name, whose failure holds no mail up."""
    refuse_extensions: Words = tuple(DANGEROUS.split())
    hold: Words = ()
    """What is held for review where it would be refused: VIRUS, SPAM, or symbols such as ATTACHMENT_TYPE."""
    junk_score: float = 6
    hold_score: float = 12
    """From here to `reject_score` a message is held for review; equal to it, nothing is held for its score."""
    reject_score: float = 15
    concurrency: Count = 32
    engine_deadline_s: Seconds = 10
    auth: bool = True
    """SPF, DKIM, DMARC and ARC of mail from other servers."""
    auth_exempt: Networks = LOOPBACK
    """Servers of our own: where they had a message from is not examined again."""
    trusted_sealers: Words = ()
    """Domains whose ARC seal is believed where it says that DMARC passed before they forwarded the message."""
    dmarc_reject: Literal["reject", "quarantine", "junk", "accept"] = "reject"
    dmarc_quarantine: Literal["quarantine", "junk", "accept"] = "junk"
    spf_fail: Literal["reject", "junk", "accept"] = "accept"
    """DMARC decides where there is one; SPF alone refuses what was honestly forwarded."""
    auth_temperror: Literal["tempfail", "accept"] = "tempfail"
    """What becomes of mail whose domain may want it refused, and the DNS does not say."""


class Quarantine(_Group):
    keep_days: Count = 30
    digest_s: Seconds = 86_400
    """From one digest to an account to the next, at least."""
    watch_s: Seconds = 60
    """How often the filters look for digests to send and held mail that has expired."""
    url: str = ""
    """Where recipients reach `/quarantine/...` of the sync service; empty: https at its public host name."""


class Delivery(_Group):
    batch: Count = 64
    spacing_s: Annotated[float, Field(ge=0)] = 0.02
    """From one batch to the next: a lone message is served at once, a stream of them in batches that cost less."""
    ack_wait_s: Seconds = 30
    max_attempts: Count = 10


class Imap(_Group):
    port: Port = 143
    tls_port: Port = 993
    max_connections: Count = 10_000
    max_per_ip: Ceiling = 0
    login_timeout_s: Seconds = 60
    idle_timeout_s: Seconds = 1800
    """RFC 9051 5.4: the autologout timer of an authenticated session is at least 30 minutes."""
    idle_notify_s: Annotated[float, Field(ge=0)] = 240
    """An idling client hears something at least so often, before what stands between cuts it off; 0 = only news."""


class Pop(_Group):
    port: Port = 110
    tls_port: Port = 995
    max_connections: Count = 2000
    max_per_ip: Ceiling = 0
    login_timeout_s: Seconds = 60
    idle_timeout_s: Seconds = 600
    """RFC 1939 3: the autologout timer is at least 10 minutes."""


class Sync(_Group):
    port: Port = 80
    tls_port: Port = 443
    admin_token: SecretStr | None = None
    mta_sts: Literal["", "none", "testing", "enforce"] = ""
    """The mode of the MTA-STS policy that is told at `mta-sts.<domain>` of every domain; empty: none is told."""
    mta_sts_mx: Words = ()
    """The MX hosts it names; empty: the public host name."""
    # What autoconfig and autodiscover tell a client: where the doors are seen from outside.
    public_hostname: str = ""
    imap_port: Port = 143
    imap_tls_port: Port = 993
    pop_port: Port = 110
    pop_tls_port: Port = 995
    submission_port: Port = 587
    submission_tls_port: Port = 465


class Probe(_Group):
    """The canary and `helm test`: doors as `host:port`, seen as a mail client sees them."""

    address: str = ""
    submission: str = ""
    imap: str = ""
    pop: str = ""
    mx: str = ""
    admin: str = ""
    """The admin API, under TLS; it is told `sync.admin_token`."""
    ca: Path | None = None
    """Authorities that may have signed the doors' certificate; none: those of the machine."""
    proxy: bool = False
    """Stand in for a proxy of `proxy.networks`: say a PROXY header first."""
    every_s: Seconds = 60
    patience_s: Seconds = 60
    public_addresses: Words = ()
    """What other servers see mail come from, looked up in `blocklists`."""
    blocklists: Words = ()


class Settings(_Group):
    """All of it. `Settings()` has every default, so a test names only what it changes."""

    hostname: str = "localhost"
    listen_host: str = "0.0.0.0"
    reuse_port: bool = False
    """Other processes of the service listen on the same ports of this machine; the kernel shares new peers out."""
    grace_s: Annotated[float, Field(ge=0)] = 25
    database: Database = Database()
    nats: Nats = Nats()
    dns: Dns = Dns()
    log: Log = Log()
    otlp: Otlp = Otlp()
    health: Health = Health()
    tls: Tls = Tls()
    proxy: Proxy = Proxy()
    limits: Limits = Limits()
    login: Login = Login()
    spool: Spool = Spool()
    submission: Submission = Submission()
    mxrouter: Mxrouter = Mxrouter()
    relay: Relay = Relay()
    dkim: Dkim = Dkim()
    srs: Srs = Srs()
    seal: Seal = Seal()
    scan: Scan = Scan()
    filter: Filter = Filter()
    quarantine: Quarantine = Quarantine()
    delivery: Delivery = Delivery()
    imap: Imap = Imap()
    pop: Pop = Pop()
    sync: Sync = Sync()
    probe: Probe = Probe()


class BadSettings(ValueError):
    """One line for an operator: the key and what was expected. Never repeats the value, which may be a secret."""


type_of_group = {
    name: field.annotation
    for name, field in Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, _Group)
}


def read(env: Mapping[str, str], needed: Sequence[str] = ()) -> Settings:
    """The settings that `env` and the file it names in POSTA_CONFIG describe.

    `needed` are paths such as "database.url" that must not be empty. Raises BadSettings.
    """
    tree = _file(env.get("POSTA_CONFIG", ""))
    names: dict[tuple[str, ...], str] = {}
    for path, name in _named(env):
        names[path] = name
        branch = tree if len(path) == 1 else tree.setdefault(path[0], {})
        if not isinstance(branch, dict):
            raise BadSettings(f"{env['POSTA_CONFIG']}: {path[0]}: expected a table")
        branch[path[-1]] = env[name]
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        lines = dict.fromkeys(_line(each, names, env) for each in error.errors(include_url=False))
        raise BadSettings("; ".join(lines)) from None
    for dotted in needed:
        group, _, key = dotted.rpartition(".")
        if not getattr(getattr(settings, group) if group else settings, key):
            raise BadSettings(f"{PREFIX}{dotted.replace('.', '_').upper()}: expected a value, it is not set")
    return settings


def load(env: Mapping[str, str] | None = None, needed: Sequence[str] = ("database.url",)) -> Settings:
    """`read` for a `__main__`: bad settings become one line on stderr and exit code 2."""
    try:
        return read(os.environ if env is None else env, needed)
    except BadSettings as error:
        _refuse(str(error))


def _refuse(line: str) -> NoReturn:
    sys.stderr.write(f"posta: {line}\n")
    raise SystemExit(2)


def _file(path: str) -> dict[str, object]:
    if not path:
        return {}
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise BadSettings(f"POSTA_CONFIG: expected a readable TOML file, {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSettings(f"POSTA_CONFIG: expected TOML, {path}: {error}") from None


def _named(env: Mapping[str, str]) -> Iterator[tuple[tuple[str, ...], str]]:
    for name in sorted(env):
        if not name.startswith(PREFIX) or name in FOR_THE_DEV_ROOM:
            continue
        words = name.removeprefix(PREFIX).lower()
        group, _, key = words.partition("_")
        if group in type_of_group and key:
            yield (group, key), name
        else:
            yield (words,), name


def _line(error: ErrorDetails, names: Mapping[tuple[str, ...], str], env: Mapping[str, str]) -> str:
    path = tuple(str(part) for part in error["loc"])
    name = names.get(path[:2]) or names.get(path[:1])
    where = name or f"{env.get('POSTA_CONFIG', 'settings')}: {'.'.join(path)}"
    if error["type"] == "extra_forbidden":
        # A Service called posta-imap makes Kubernetes inject POSTA_IMAP_SERVICE_HOST and its kin into every pod.
        linked = (name is not None and env[name].startswith("tcp://")) or "_SERVICE_" in where
        return f"{where}: unknown key" + (" (set enableServiceLinks: false on the pod)" if linked else "")
    return f"{where}: {error['msg'].removeprefix('Value error, ').replace('Input should be', 'expected')}"
