"""`make chart`: values.schema.json, README.md and the dashboards, from what is written once elsewhere.

values.yaml says every key with its default and, in the comment above it, what it is for; `@enum a|b`, `@type a|b`,
`@free` (Kubernetes' own, not looked into) and `@settings` (Posta's settings) say what the default cannot.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parent
CHART = ROOT / "posta"
sys.path[:0] = [str(ROOT.parent), str(ROOT)]

from boards import BOARDS, Board, Panel  # noqa: E402

from services.core.settings import Settings  # noqa: E402

BY_THE_CHART = {"hostname", "listen_host", "grace_s", "health", "otlp", "tls", "proxy", "probe"}
BY_THE_CHART_IN = {
    "database": {"url", "direct_url", "read_only_url"},
    "nats": {"url", "replicas", "trace_days", "trace_size"},
    "sync": {"admin_token", "mta_sts", "mta_sts_mx"},
}
Tree = dict[str, Any]

TEXT, FLAG = {"type": "string"}, {"type": "boolean"}


def _closed(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


_LIMIT = {"type": ["integer", "null"], "minimum": 0}
_SECRET = _closed(["name", "key"], name=TEXT, key=TEXT)
# Lists of our own making, looked into as well.
ITEMS: dict[str, Any] = {
    "provision.domains": {
        "anyOf": [
            TEXT,
            _closed(
                ["domain"],
                domain=TEXT,
                policy=_closed([], heldMail={"enum": ["refuse", "accept"]}, notifySender=FLAG, digest=FLAG),
            ),
        ]
    },
    "provision.accounts": _closed(
        ["address"],
        address=TEXT,
        name=TEXT,
        quota={"type": ["string", "integer"]},
        suspended=FLAG,
        recipientsPerHour=_LIMIT,
        recipientsPerDay=_LIMIT,
        passwordSecret=_SECRET,
    ),
    "provision.dkim": _closed(
        ["domain", "selector", "secret"],
        domain=TEXT,
        selector=TEXT,
        secret=_closed(["name", "key"], name=TEXT, key=TEXT),
    ),
    "provision.aliases": _closed(["address", "targets"], address=TEXT, targets={"type": "array", "items": TEXT}),
    "mtaSts.mx": TEXT,
    "proxyProtocol.networks": TEXT,
    "tls.extraNames": TEXT,
    "tls.domains": _closed(["secret"], secret=TEXT, names={"type": "array", "items": TEXT}),
    "clamd.addresses": TEXT,
    "rspamd.addresses": TEXT,
    "rspamd.controllers": TEXT,
    "canary.publicAddresses": TEXT,
    "canary.blocklists": TEXT,
}


class Key(NamedTuple):
    """One key of values.yaml: where it is, its default, and what its comment says."""

    path: tuple[str, ...]
    default: Any
    says: str
    marks: dict[str, str]


def keys() -> Iterator[Key]:
    """Every key in order, a group before what is in it."""
    text = (CHART / "values.yaml").read_text()
    yield from _walk(yaml.compose(text), text.splitlines(), ())


def _walk(node: yaml.MappingNode, lines: list[str], path: tuple[str, ...]) -> Iterator[Key]:
    for name, value in node.value:
        says, marks = _comment(lines, name.start_mark.line)
        here = (*path, name.value)
        yield Key(here, yaml.safe_load(yaml.serialize(value)), says, marks)
        if (
            isinstance(value, yaml.MappingNode)
            and not {"free", "settings"} & marks.keys()
            and path[:1] != ("services",)
        ):
            yield from _walk(value, lines, here)


def _comment(lines: list[str], line: int) -> tuple[str, dict[str, str]]:
    indent = len(lines[line]) - len(lines[line].lstrip())
    found: list[str] = []
    while line and (above := lines[line - 1]).strip().startswith("#") and len(above) - len(above.lstrip()) == indent:
        found.insert(0, above.strip().lstrip("# "))
        line -= 1
    text = " ".join(found)
    marks = dict(re.findall(r"@(\w+)(?: ([\w|]+))?", text))
    return re.sub(r"\s*@\w+(?: [\w]+(?:\|[\w]+)+)?", "", text).strip(), marks


# ---- the schema ------------------------------------------------------------------------------------------------


def schema() -> Tree:
    """JSON schema of the values: every key, nothing else."""
    tree: Tree = {"$schema": "https://json-schema.org/draft-07/schema#", "title": "Values of Posta"}
    tree |= {"type": "object", "additionalProperties": False, "properties": {}}
    for key in keys():
        if key.path[0] == "services" and len(key.path) > 1:
            node: Tree = {"$ref": "#/properties/defaults"}
        else:
            node = _node(key)
        at = tree
        for step in key.path[:-1]:
            at = at["properties"][step]
        at["properties"][key.path[-1]] = node
    tree["properties"]["domain"]["description"] += " (helm asks for it)"
    # What helm itself hands to a chart.
    tree["properties"]["global"] = {"type": "object"}
    tree["definitions"] = {"settings": _settings()}
    return tree


def _node(key: Key) -> Tree:
    says: Tree = {"description": key.says}
    if "settings" in key.marks:
        return {**says, "$ref": "#/definitions/settings"}
    if "enum" in key.marks:
        cast = int if isinstance(key.default, int) else str
        return {**says, "enum": [cast(word) for word in key.marks["enum"].split("|")]}
    if "type" in key.marks:
        return {**says, "type": key.marks["type"].split("|")}
    if isinstance(key.default, dict):
        closed: Tree = {} if "free" in key.marks else {"additionalProperties": False, "properties": {}}
        return {**says, "type": "object", **closed}
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
    items = ITEMS.get(".".join(key.path))
    return {**says, "type": kinds[type(key.default)], **({"items": items} if items else {})}


def _settings() -> Tree:
    whole = Settings.model_json_schema()
    groups: Tree = {}
    for name, field in whole["properties"].items():
        if name in BY_THE_CHART:
            continue
        if "$ref" not in field:
            groups[name] = _setting(field)
            continue
        group = whole["$defs"][field["$ref"].rpartition("/")[2]]
        fields = {key: _setting(each) for key, each in group["properties"].items() if _may_be_shown(name, key, each)}
        groups[name] = {"type": "object", "additionalProperties": False, "properties": fields}
    return {"type": "object", "additionalProperties": False, "properties": groups}


def _may_be_shown(group: str, key: str, field: Tree) -> bool:
    # A secret in values would be a secret in plain text in every Deployment.
    return key not in _kept(group) and "password" not in {each.get("format") for each in field.get("anyOf", [field])}


def _kept(group: str) -> set[str]:
    ports = {"port", "tls_port"} if group in ("submission", "mxrouter", "imap", "pop", "sync") else set()
    outside = {name for name in Settings().sync.model_dump() if name.endswith("_port") or name == "public_hostname"}
    return ports | BY_THE_CHART_IN.get(group, set()) | (outside if group == "sync" else set())


def _setting(field: Tree) -> Tree:
    kinds = {each.get("type", "string") for each in field.get("anyOf", [field])} - {"null"}
    if "enum" in field:
        return {"enum": field["enum"]}
    if "array" in kinds:
        return {"type": ["array", "string"]}
    if "integer" in kinds:
        limits = {k: field[k] for k in ("minimum", "maximum") if k in field}
        return {"type": "integer", **limits} if limits else {"type": ["integer", "string"]}  # octets may be "50MiB"
    if "number" in kinds:
        return {"type": "number", **{k: field[k] for k in ("minimum", "exclusiveMinimum") if k in field}}
    return {"type": sorted(kinds)[0]}


# ---- the page --------------------------------------------------------------------------------------------------


def readme() -> str:
    """README.md: what stands in front of the table is kept."""
    before = (CHART / "README.md").read_text().partition("<!-- values -->")[0]
    rows = ["| key | default | |", "|---|---|---|"]
    for key in keys():
        group = (
            isinstance(key.default, dict) and not {"free", "settings"} & key.marks.keys() and key.path[0] != "services"
        )
        if group and not key.says:
            continue
        shown = "" if group or key.path[0] == "services" else f"`{json.dumps(key.default)}`"
        says = key.says.replace("|", "\\|")
        rows.append(f"| `{'.'.join(key.path)}` | {shown if len(shown) < 120 else '(see values.yaml)'} | {says} |")
    return before + "<!-- values -->\n" + "\n".join(rows) + "\n"


# ---- the dashboards --------------------------------------------------------------------------------------------


def dashboard(board: Board) -> Tree:
    """Grafana's JSON of a board: two panels beside each other, stats four."""
    panels, x, y, row = [], 0, 0, 0
    for number, panel in enumerate(board.panels, 1):
        width, height = (6, 4) if panel.kind == "stat" else (12, 8)
        if x + width > 24 or (row and height != row):
            x, y = 0, y + row
        row = height
        panels.append(_panel(panel, number, {"x": x, "y": y, "w": width, "h": height}))
        x += width
    source = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    namespace = {
        "name": "namespace", "type": "query", "label": "Namespace", "refresh": 2, "datasource": {"uid": "$datasource"},
        "query": "label_values(posta_delivery_spool_recipients, namespace)",
    }  # fmt: skip
    return {
        "uid": f"posta-{board.name}",
        "title": board.title,
        "tags": ["posta"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [source, namespace]},
        "links": [{"type": "dashboards", "tags": ["posta"], "title": "Posta", "asDropdown": True}],
        "panels": panels,
    }


def _panel(panel: Panel, number: int, where: Tree) -> Tree:
    targets = [
        {"refId": chr(65 + n), "expr": query.replace("$sel", 'namespace="$namespace"'), "legendFormat": legend}
        for n, (query, legend) in enumerate(panel.lines)
    ]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": {"type": "prometheus", "uid": "$datasource"},
        "gridPos": where,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": targets,
    }


def made() -> dict[Path, str]:
    """Every file that is made here, with what it must hold."""
    boards = {CHART / "dashboards" / f"{board.name}.json": json.dumps(dashboard(board), indent=1) for board in BOARDS}
    return {
        CHART / "values.schema.json": json.dumps(schema(), indent=1, ensure_ascii=False) + "\n",
        CHART / "README.md": readme(),
        **{path: text + "\n" for path, text in boards.items()},
    }


if __name__ == "__main__":
    for path, text in made().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
