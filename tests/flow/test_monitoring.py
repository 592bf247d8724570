"""Every dashboard and every alert, asked of a real Prometheus that watches a platform at work."""

from __future__ import annotations

import json
import shutil
import smtplib
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.dev.plan import Plan
from tests.flow.clients import letter
from tests.flow.conftest import DOMAIN, REPO, Platform, User, _free
from tests.flow.test_admin import admin, environment

CHART = REPO / "charts" / "posta"
# Counts of what did not happen here have no series: the graph is rightly empty.
MAY_BE_EMPTY = {
    ("overview", "Refused or put off", "mxrouter {{code}}"),
    ("queue", "Attempts by result", "{{result}}"),
    ("queue", "Visits in progress", "{{kind}}"),
    ("queue", "Connections to other servers", "{{how}}"),
    ("queue", "TLS with them", "{{policy}} {{result}}"),
    ("queue", "Accounts paused for sending", "{{cause}}"),
    ("filter", "Mail about held mail", "{{reader}}"),
    ("filter", "Age of signatures", "oldest"),  # there need not be a clamd
}


class Prometheus:
    """A server on 127.0.0.1 that scrapes the platform as the chart's monitors would."""

    def __init__(self, folder: Path, targets: dict[str, int]) -> None:
        self.port = next(port for port in range(26_000, 27_000) if _free(port))
        shutil.copy(CHART / "alerts.yaml", folder)
        jobs = [
            {
                "job_name": component,
                "static_configs": [
                    {
                        "targets": [f"127.0.0.1:{port}"],
                        "labels": {"namespace": "posta", "component": component, "pod": f"posta-{component}-0"},
                    }
                ],
            }
            for component, port in targets.items()
        ]
        timing = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "2s"}
        config = {"global": timing, "rule_files": ["alerts.yaml"], "scrape_configs": jobs}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._log = (folder / "log").open("w")
        self._process = subprocess.Popen(
            (
                "prometheus",
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ),
            stdout=self._log,
            stderr=self._log,
        )

    def get(self, path: str, **words: str) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(words)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def ask(self, query: str) -> list[Any]:
        found: list[Any] = self.get("query", query=query)["result"]
        return found

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._log.close()


@pytest.fixture(scope="module")
def prometheus(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Watches the shared platform and a canary beside it."""
    if shutil.which("prometheus") is None:
        pytest.skip("needs prometheus")
    port = next(port for port in range(25_000, 26_000) if _free(port))
    env = environment(
        platform,
        POSTA_HEALTH_PORT=str(port),
        POSTA_PROBE_EVERY_S="1",
        POSTA_PROBE_ADDRESS=f"canary@{DOMAIN}",
        POSTA_LISTEN_HOST="127.0.0.1",
    )
    canary = subprocess.Popen(
        (sys.executable, "-m", "services.admin", "canary"), cwd=REPO, env=env, stdout=subprocess.DEVNULL
    )
    base = platform.base
    targets = {process.name: Plan(base).ports(process)["health"] for process in Plan(base).processes()}
    server = Prometheus(tmp_path_factory.mktemp("prometheus"), {**targets, "canary": port})
    yield server
    server.stop()
    canary.terminate()
    canary.wait(30)


@pytest.fixture(scope="module")
def at_work(prometheus: Prometheus, platform: Platform) -> Prometheus:
    """Once every way into the platform has been used and seen twice."""
    bob = User(f"bob@{DOMAIN}", "posta-demo")
    for _ in range(3):
        with smtplib.SMTP("localhost", platform.ports["smtp"], timeout=30) as client:
            client.sendmail("someone@elsewhere.test", bob.address, letter("someone@elsewhere.test", bob.address))
        assert admin(platform, "journey").returncode == 0
        with urllib.request.urlopen(f"http://localhost:{platform.ports['http']}/docs", timeout=10) as answer:
            answer.read()
    targets = len(Plan(platform.base).services) + 1
    needed = (
        # A rate is between two samples: after the last thing done, every target is seen again.
        f"count(count_over_time(process_start_time_seconds[1m] offset 2s) >= 3) == {targets}",
        "count(rate(posta_canary_journeys_total[1m]))",
        'count(rate(posta_mxrouter_messages_total{code="250"}[1m]))',
        "count(rate(posta_pop_logins_total[1m]))",
        "count(rate(posta_sync_requests_total[1m]))",
        'count(posta_delivery_work_pending{subject="local"})',
    )
    for query in needed:
        platform.eventually(query, lambda query=query: _or_nothing(prometheus, query), 60)
    return prometheus


def _or_nothing(prometheus: Prometheus, query: str) -> list[Any]:
    try:
        return prometheus.ask(query)
    except OSError:
        return []


@pytest.mark.parametrize("board", sorted(path.stem for path in (CHART / "dashboards").glob("*.json")))
def test_no_graph_of_a_dashboard_is_empty(at_work: Prometheus, board: str) -> None:
    empty = []
    for panel in json.loads((CHART / "dashboards" / f"{board}.json").read_text())["panels"]:
        for target in panel["targets"]:
            query = target["expr"].replace("$namespace", "posta").replace("$__rate_interval", "1m")
            if not at_work.ask(query) and (board, panel["title"], target["legendFormat"]) not in MAY_BE_EMPTY:
                empty.append((panel["title"], target["legendFormat"], query))
    assert empty == []


def test_alerts_are_evaluated_and_a_platform_that_is_well_raises_none(at_work: Prometheus) -> None:
    groups = at_work.get("rules", type="alert")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"] for rule in rules} == {
        rule["alert"]
        for group in yaml.safe_load((CHART / "alerts.yaml").read_text())["groups"]
        for rule in group["rules"]
    }
    assert [(rule["name"], rule["lastError"]) for rule in rules if rule["health"] == "err"] == []
    assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []
