"""Sidecars that tell Prometheus of the bundled Postgres and NATS: there when wanted, scraped, and never in the way."""

from __future__ import annotations

from typing import Any

from tests.chart.conftest import Rendered

EXPORTERS = {"postgres": 9187, "nats": 7777}


def exporters(install: Rendered) -> dict[str, dict[str, Any]]:
    """The sidecar of each store that has one."""
    return {
        component: container
        for component in EXPORTERS
        if f"posta-{component}" in install.kind("StatefulSet")
        for container in install.kind("StatefulSet")[f"posta-{component}"]["spec"]["template"]["spec"]["containers"]
        if container["name"] == "exporter"
    }


def test_exporters_are_there_where_they_are_wanted(rendered: dict[str, Rendered]) -> None:
    assert {name: set(exporters(each)) for name, each in rendered.items() if exporters(each)} == {
        "everything": {"postgres", "nats"},
        "some": {"nats"},
    }
    for component, container in exporters(rendered["everything"]).items():
        assert container["ports"] == [{"name": "metrics", "containerPort": EXPORTERS[component]}]
        # What measures the store must not take it away: a pod is ready when all of its containers are.
        assert not [key for key in container if key.endswith("Probe")]
        assert rendered["everything"].kind("Service")[f"posta-{component}"]["spec"]["publishNotReadyAddresses"] is True
    env = {each["name"]: each for each in exporters(rendered["everything"])["postgres"]["env"]}
    assert env["DATA_SOURCE_PASS"]["valueFrom"]["secretKeyRef"] == {
        "name": "posta-generated",
        "key": "postgres-password",
    }
    (*_, monitor) = exporters(rendered["everything"])["nats"]["args"]
    assert monitor == "http://127.0.0.1:8222"
    assert "http_port: 8222" in rendered["everything"].kind("ConfigMap")["posta-nats"]["data"]["nats.conf"]


def test_monitors_scrape_exporters_and_are_let_in_to_them_alone(rendered: dict[str, Rendered]) -> None:
    for name, install in rendered.items():
        found = exporters(install)
        for component in EXPORTERS.keys() & {each.removeprefix("posta-") for each in install.kind("NetworkPolicy")}:
            ports = [
                port["port"]
                for rule in install.kind("NetworkPolicy")[f"posta-{component}"]["spec"]["ingress"]
                if any("namespaceSelector" in peer for peer in rule["from"])
                for port in rule["ports"]
            ]
            assert ports == ["metrics"] * (component in found), name
        for monitor in install.kind("PodMonitor").values():
            (left_out,) = monitor["spec"]["selector"]["matchExpressions"]
            assert {"postgres", "nats"} - set(left_out["values"]) == set(found), name
            endpoints = {each["port"]: each["relabelings"][0] for each in monitor["spec"]["podMetricsEndpoints"]}
            assert list(endpoints) == ["health", *["metrics"] * bool(found)], name
            # What an exporter takes of processor and memory is not what its store takes.
            assert {port for port, rule in endpoints.items() if "replacement" in rule} == {"metrics"} & endpoints.keys()
        for monitor in install.kind("ServiceMonitor").values():
            wanted = monitor["spec"]["selector"]["matchLabels"].items()
            chosen = [each for each in install.kind("Service").values() if wanted <= each["metadata"]["labels"].items()]
            ports = {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]}
            for component in EXPORTERS:
                here = [each for each in chosen if each["metadata"]["name"] == f"posta-{component}"]
                assert len(here) == (component in found), name
                for service in here:
                    assert ports & {port["name"] for port in service["spec"]["ports"]} == {"metrics"}
    assert rendered["some"].kind("PodMonitor")
    assert rendered["everything"].kind("ServiceMonitor")
