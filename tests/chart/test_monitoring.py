"""Dashboards and alerts ask only for what exists; every alert fires when it must and is silent when it need not."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from charts.generate import keys, made
from tests.chart.conftest import CHART, ROOT, Rendered

DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))
GROUPS = yaml.safe_load((CHART / "alerts.yaml").read_text())["groups"]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"]}
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
OF_THE_CLIENT = {
    "process_cpu_seconds_total", "process_open_fds", "process_resident_memory_bytes", "process_start_time_seconds",
}  # fmt: skip
SERVICES = ("submission", "mxrouter", "filter", "delivery", "imap", "pop", "sync")


def exported() -> set[str]:
    """Every series a service may export, read off the code that makes it."""
    names = set()
    for path in ROOT.glob("services/**/*.py"):
        room = path.relative_to(ROOT / "services").parts[0]
        processes = {"core": SERVICES, "admin": ("canary",)}.get(room, (room,))
        for kind, name in _made_in(path):
            names |= {f"posta_{process}_{name}{suffix}" for process in processes for suffix in SUFFIXES[kind]}
    return names | OF_THE_CLIENT


def _made_in(path: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in SUFFIXES and isinstance(node.args[0].value, str):
                yield called, node.args[0].value


def asked(query: str) -> set[str]:
    several = re.findall(r'__name__=~"posta_\(([\w|]+)\)_(\w+)"', query)
    assert len(several) == query.count("__name__"), query
    spelled = {f"posta_{process}_{name}" for processes, name in several for process in processes.split("|")}
    return spelled | set(re.findall(r"\b(?:posta|process)_\w+", query))


def queries() -> Iterator[tuple[str, str]]:
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                yield f"{path.stem}: {panel['title']}", target["expr"]
    for name, rule in ALERTS.items():
        yield name, rule["expr"]


def test_every_metric_that_is_asked_for_exists() -> None:
    known = exported()
    missing = {(where, metric) for where, query in queries() for metric in asked(query) if metric not in known}
    assert missing == set()


def test_what_services_scale_by_exists(rendered: dict[str, Rendered]) -> None:
    for each in rendered["keda"].kind("ScaledObject").values():
        for trigger in each["spec"]["triggers"]:
            metrics = asked(trigger["metadata"].get("query", ""))
            assert bool(metrics) == (trigger["type"] == "prometheus")
            assert metrics <= exported()


def test_what_is_made_is_up_to_date() -> None:
    stale = [str(path.relative_to(ROOT)) for path, text in made().items() if path.read_text() != text]
    assert stale == [], "run `make chart`"


def test_every_value_says_what_it_is_for() -> None:
    silent = [".".join(key.path) for key in keys() if not key.says and (not isinstance(key.default, dict) or key.marks)]
    assert silent == []


def test_every_value_is_used_by_a_template() -> None:
    templates = "\n".join(path.read_text() for path in (CHART / "templates").rglob("*") if path.is_file())
    unused = [
        ".".join(key.path)
        for key in keys()
        if key.path[0] != "services" and not re.search(rf"\b{re.escape(key.path[-1])}\b", templates)
    ]
    assert unused == []


# ---- dashboards ------------------------------------------------------------------------------------------------


def test_dashboards_are_config_maps_that_grafana_finds(rendered: dict[str, Rendered]) -> None:
    maps = {n: m for n, m in rendered["everything"].kind("ConfigMap").items() if n.startswith("posta-dashboard-")}
    assert {name.removeprefix("posta-dashboard-") for name in maps} == {path.stem for path in DASHBOARDS}
    for each in maps.values():
        assert each["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert each["metadata"]["annotations"]["grafana_folder"] == "Posta"
        assert each["metadata"]["namespace"] == "monitoring"
        (text,) = each["data"].values()
        assert json.loads(text)["title"].startswith("Posta / ")


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_do_not_overlap_and_ask_the_chosen_source(path: Path) -> None:
    board = json.loads(path.read_text())
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
        assert panel["datasource"]["uid"] == "$datasource"
        assert all('namespace="$namespace"' in target["expr"] for target in panel["targets"])
    assert {variable["name"] for variable in board["templating"]["list"]} == {"datasource", "namespace"}


# ---- alerts ----------------------------------------------------------------------------------------------------


def promtool(*words: str) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("needs promtool")
    done = subprocess.run(("promtool", *words), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_its_runbook_and_every_runbook_its_alert() -> None:
    runbooks = {path.stem for path in (ROOT / "docs" / "runbooks").glob("*.md")} - {"README"}
    assert runbooks == set(ALERTS)
    for name, rule in ALERTS.items():
        assert rule["annotations"]["runbook_url"].endswith(f"/{name}.md")
        assert rule["labels"]["severity"] in ("warning", "critical")
        page = (ROOT / "docs" / "runbooks" / f"{name}.md").read_text()
        assert "## Look" in page
        assert "## Do" in page


def test_alerts_are_rules_that_prometheus_takes() -> None:
    promtool("check", "rules", str(CHART / "alerts.yaml"))


def test_alerts_are_about_this_release_alone(rendered: dict[str, Rendered]) -> None:
    (rule,) = rendered["everything"].kind("PrometheusRule").values()
    text = yaml.safe_dump(rule["spec"])
    assert 'namespace="mail"' in text
    assert 'namespace="posta"' not in text
    assert "runbooks.posta.test" not in text
    assert rule["metadata"]["labels"]["release"] == "prometheus"


def test_the_quiet_hour_is_the_operators(render: Any) -> None:
    def names(minutes: int) -> dict[str, str]:
        made = render({"metrics": {"rules": True, "silentMinutes": minutes}}).kind("PrometheusRule")["posta"]
        return {rule["alert"]: rule["expr"] for rule in made["spec"]["groups"][0]["rules"]}

    assert "[90m]" in names(90)["PostaNoMailAccepted"]
    assert "PostaNoMailAccepted" not in names(0)
    assert len(names(0)) == len(ALERTS) - 1


# For each alert: the series that make it fire, and the same without reason to. There is a sample a
# minute, for an hour and a half.


def series(metric: str, values: str, **labels: str) -> dict[str, str]:
    more = "".join(f',{key}="{value}"' for key, value in labels.items())
    return {"series": f'{metric}{{namespace="posta",pod="p"{more}}}', "values": values}


def flat(metric: str, value: float, **labels: str) -> dict[str, str]:
    return series(metric, f"{value:g}+0x90", **labels)


def grows(metric: str, a_minute: float, **labels: str) -> dict[str, str]:
    return series(metric, f"0+{a_minute:g}x90", **labels)


def spread(metric: str, seconds: float, a_minute: float = 60) -> list[dict[str, str]]:
    """A histogram all of whose observations took `seconds`."""
    bounds = ("0.1", "1.0", "2.5", "5.0", "10.0", "30.0", "+Inf")
    return [grows(metric + "_bucket", a_minute if seconds <= float(b) else 0, le=b) for b in bounds]


def both(metric: str, kept: float, put_off: float) -> list[dict[str, str]]:
    return [grows(f"posta_{d}_{metric}", kept, code="250") for d in ("submission", "mxrouter")] + [
        grows(f"posta_submission_{metric}", put_off, code="451")
    ]


Given = list[dict[str, str]]
CASES: dict[str, tuple[Given, Given]] = {
    "PostaNoMailAccepted": (both("messages_total", 0, 5), both("messages_total", 1, 0)),
    "PostaCanaryFailing": (
        [grows("posta_canary_journeys_total", 1, result="failed")],
        [grows("posta_canary_journeys_total", 1, result="arrived"),
         flat("posta_canary_journeys_total", 1, result="failed")],
    ),
    "PostaCanarySilent": (
        [flat("posta_canary_last_success_timestamp_seconds", 60)],
        [grows("posta_canary_last_success_timestamp_seconds", 60)],
    ),
    "PostaServiceDown": ([], [flat("process_start_time_seconds", 1, component="delivery")]),
    "PostaLocalQueueOld": (
        [flat("posta_delivery_spool_oldest_seconds", 700, kind="local")],
        [flat("posta_delivery_spool_oldest_seconds", 5, kind="local")],
    ),
    "PostaRemoteQueueOld": (
        [flat("posta_delivery_spool_oldest_seconds", 20000, kind="remote")],
        [flat("posta_delivery_spool_oldest_seconds", 10000, kind="remote")],
    ),
    "PostaRelayOverdue": (
        [flat("posta_delivery_spool_overdue_seconds", 1000, kind="remote")],
        [flat("posta_delivery_spool_overdue_seconds", 1000, kind="local")],
    ),
    "PostaAttemptsFailing": (
        [flat("posta_delivery_spool_failing", 51, kind="remote")],
        [flat("posta_delivery_spool_failing", 50, kind="remote")],
    ),
    "PostaBounceRate": (
        [grows("posta_delivery_recipients_delivered_total", 60), grows("posta_delivery_recipients_refused_total", 10)],
        [grows("posta_delivery_recipients_delivered_total", 60), grows("posta_delivery_recipients_refused_total", 1)],
    ),
    "PostaDoorsPutOff": (both("messages_total", 30, 10), both("messages_total", 30, 1)),
    "PostaFilterErrors": (
        [grows("posta_filter_engine_faults_total", 1, engine="clamd")],
        [flat("posta_filter_engine_faults_total", 100, engine="clamd")],
    ),
    "PostaSignaturesStale": (
        [flat("posta_filter_signatures_timestamp_seconds", -300_000)],
        [flat("posta_filter_signatures_timestamp_seconds", 0)],
    ),
    "PostaQuarantineGrows": (
        [grows("posta_filter_quarantine_messages", 5, kind="spam")],
        [grows("posta_filter_quarantine_messages", 1, kind="spam")],
    ),
    "PostaFilterSlow": (spread("posta_filter_scan_seconds", 20), spread("posta_filter_scan_seconds", 2)),
    "PostaAuthFailures": (
        [grows("posta_imap_logins_total", 400, result="failed")],
        [grows("posta_imap_logins_total", 4000, result="ok"), grows("posta_pop_logins_total", 60, result="failed")],
    ),
    "PostaSenderSpike": (
        [flat("posta_delivery_spool_one_sender", 2001)],
        [flat("posta_delivery_spool_one_sender", 100)],
    ),
    "PostaCertificateEnds": (
        [flat("posta_pop_certificate_expiry_timestamp_seconds", 10 * 86400),
         flat("posta_imap_certificate_expiry_timestamp_seconds", 90 * 86400)],
        [flat("posta_pop_certificate_expiry_timestamp_seconds", 20 * 86400)],
    ),
    "PostaAddressListed": (
        [flat("posta_canary_address_listed", 1, blocklist="bl.example")],
        [flat("posta_canary_address_listed", 0, blocklist="bl.example")],
    ),
    "PostaWorkPending": (
        [flat("posta_delivery_work_pending", 6000, subject="local")],
        [flat("posta_delivery_work_pending", 600, subject="local")],
    ),
    "PostaBusAway": (
        [flat("posta_imap_bus_connected", 0), flat("posta_pop_bus_connected", 1)],
        [flat("posta_imap_bus_connected", 1), flat("posta_pop_bus_connected", 1)],
    ),
    "PostaStoreAway": (
        [grows("posta_imap_store_unavailable_total", 30), flat("posta_pop_store_unavailable_total", 3)],
        [grows("posta_imap_store_unavailable_total", 1)],
    ),
    "PostaReplicationLag": (
        [flat("posta_delivery_store_replication_lag_seconds", 90)],
        [flat("posta_delivery_store_replication_lag_seconds", 1)],
    ),
    "PostaImapLoginSlow": (spread("posta_imap_login_seconds", 4), spread("posta_imap_login_seconds", 0.05)),
    "PostaHttpErrors": (
        [grows("posta_sync_requests_total", 10, code="503"), grows("posta_sync_requests_total", 90, code="200")],
        [grows("posta_sync_requests_total", 1, code="503"), grows("posta_sync_requests_total", 90, code="200")],
    ),
}  # fmt: skip


def test_there_is_a_case_for_every_alert() -> None:
    assert set(CASES) == set(ALERTS)


def test_alerts_fire_when_they_must_and_only_then(tmp_path: Path) -> None:
    files = []
    for name, given in CASES.items():
        # ALERTS is what Prometheus keeps of them: whether one fires counts here, not how it is worded.
        firing = f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) or vector(0)'
        tests = []
        for fires, series_given in zip((1, 0), given, strict=True):
            expected = {"expr": firing, "eval_time": "80m", "exp_samples": [{"labels": "{}", "value": fires}]}
            tests.append({"interval": "1m", "input_series": series_given, "promql_expr_test": [expected]})
        # Each rule in a file of its own: promtool evaluates all of a file's for every minute of every test.
        alone = {"groups": [{"name": "posta", "rules": [ALERTS[name]]}]}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(alone))
        files.append(tmp_path / f"{name}-test.yaml")
        files[-1].write_text(yaml.safe_dump({"rule_files": [f"{name}.yaml"], "tests": tests}))
    promtool("test", "rules", *map(str, files))
