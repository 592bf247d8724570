"""The embedded rspamd: Debian's program and rules, with a configuration of its own that asks nobody else anything.

No Redis: the classifier keeps what it learns in SQLite. No lists, maps or fuzzy hashes of other people: a message that
is tried out on this machine leaves no trace elsewhere, and the start does not wait for a network. What it may ask the
DNS it asks the platform's own; where that is not set, nobody.
"""

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.dev import probe
from services.dev.child import Program
from services.dev.home import Home, write
from services.dev.place import Room, room
from services.dev.plan import LISTEN_HOST
from services.dev.process import clear

USER = "_rspamd"
# Compiled at the first start: the public suffix list takes ten seconds and 100 MB, these nothing to speak of. They are
# the endings by which a word without "http://" is known for an address.
ENDINGS = "com net org edu gov int info biz app dev io me tv eu uk us ca au de fr es it nl pl ch at se ru ua cn jp"
NOWHERE = f"{LISTEN_HOST}:9"
# Modules that work on the message alone: others wait for the DNS, and every message with them.
MODULES = ("chartable", "forged_recipients", "maillist", "regexp")


@dataclass(frozen=True, slots=True)
class Rspamd:
    """One embedded server of one home: a worker that examines, a controller that learns."""

    home: Home
    binary: Path
    port: int
    controller_port: int
    room: Room
    resolvers: Sequence[str]

    @property
    def settings(self) -> dict[str, str]:
        """What the filter has to know."""
        return {
            "POSTA_FILTER_RSPAMD": f"{LISTEN_HOST}:{self.port}",
            "POSTA_FILTER_RSPAMD_CONTROLLER": f"{LISTEN_HOST}:{self.controller_port}",
            "POSTA_FILTER_RSPAMD_PASSWORD": self.home.secret("rspamd-password"),
        }

    def prepare(self) -> None:
        """Write its configuration."""
        folder, owner = self.room
        write(folder / "endings.dat", "\n".join([*ENDINGS.split(), "test", "example", ""]), owner=owner)
        write(folder / "rspamd.conf", self._configuration(), owner=owner)

    def program(self) -> Program:
        """How the supervisor runs it."""
        folder = self.room.folder

        async def ready() -> str:
            return await probe.rspamd(self.port)

        async def before() -> None:
            await clear(folder)

        return Program(
            name="rspamd",
            # LOCAL_CONFDIR: what this machine's own rspamd has been told is not meant for this one.
            argv=(
                *(str(self.binary), "--no-fork", "--config", str(folder / "rspamd.conf")),
                *(f"--var=DBDIR={folder}", f"--var=LOCAL_CONFDIR={folder}"),
            ),
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "TZ": "UTC"},
            ports={"rspamd": self.port, "controller": self.controller_port},
            log=self.home.log_of("rspamd"),
            ready=ready,
            before=before,
            cwd=folder,
            owner=self.room.owner,
            with_parent=signal.SIGTERM,
        )

    def _configuration(self) -> str:
        folder, password = self.room.folder, self.home.secret("rspamd-password")
        servers = ", ".join(f'"{each}"' for each in self.resolvers or (NOWHERE,))
        modules = "\n".join(f'.include "$CONFDIR/modules.d/{name}.conf"' for name in MODULES)
        return f"""\
lua = "$RULESDIR/rspamd.lua";
.include "$CONFDIR/metrics.conf"
.include "$CONFDIR/groups.conf"
.include "$CONFDIR/composites.conf"
{modules}
modules {{ path = "$PLUGINSDIR"; }}
actions {{ reject = 15; add_header = 6; }}
options {{
  filters = "chartable,regexp";
  pidfile = "{folder}/rspamd.pid";
  control_socket = "{folder}/control mode=0600";
  cache_file = "{folder}/symbols.cache";
  dynamic_conf = "{folder}/dynamic";
  history_file = "{folder}/history";
  stats_file = "{folder}/stats.ucl";
  hs_cache_dir = "{folder}/";
  tempdir = "{folder}";
  url_tld = "{folder}/endings.dat";
  history_rows = 20;
  local_addrs = [];
  dns {{ nameserver = [{servers}]; timeout = 0.5s; retransmits = 1; sockets = 1; }}
}}
logging {{ type = "console"; level = "warning"; color = false; }}
classifier "bayes" {{
  name = "posta";
  backend = "sqlite3";
  tokenizer {{ name = "osb"; }}
  cache {{ path = "{folder}/learned.sqlite"; }}
  min_tokens = 11;
  min_learns = 20;
  learn_condition = 'return require("lua_bayes_learn").can_learn';
  statfile {{ symbol = "BAYES_HAM"; path = "{folder}/ham.sqlite"; spam = false; }}
  statfile {{ symbol = "BAYES_SPAM"; path = "{folder}/spam.sqlite"; spam = true; }}
}}
worker "normal" {{ bind_socket = "{LISTEN_HOST}:{self.port}"; count = 1; mime = true; }}
worker "controller" {{
  bind_socket = "{LISTEN_HOST}:{self.controller_port}";
  count = 1;
  password = "{password}";
  enable_password = "{password}";
  secure_ip = [];
}}
worker "hs_helper" {{ enabled = false; count = 0; }}
worker "rspamd_proxy" {{ enabled = false; count = 0; }}
worker "fuzzy" {{ count = -1; }}
"""


def embedded(home: Home, binary: Path, ports: tuple[int, int], resolvers: Sequence[str]) -> Rspamd:
    """The embedded rspamd of this home, its room made. Raises Trouble."""
    port, controller_port = ports
    return Rspamd(home, binary, port, controller_port, room(home, "rspamd", USER), resolvers)
