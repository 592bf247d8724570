"""Every object is what Kubernetes takes, and every pod what the checklist asks of it."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from typing import Any

import helm_python
import kubernetes_validate
import pytest

from services.core.settings import Settings, read
from tests.chart.conftest import CHART, INSTALLS, MINIMAL, Render, Rendered, merged

MINORS = ("1.35", "1.36", "1.37")
# Of other projects: their schemas come with them, not with Kubernetes.
ROUTES = {"HTTPRoute", "TCPRoute", "TLSRoute"}
FOREIGN = {"Certificate", "PodMonitor", "PrometheusRule", "ScaledObject", "ServiceMonitor", *ROUTES}
SERVICES = ("submission", "mx", "relay", "filter", "delivery", "imap", "pop", "sync")


@pytest.mark.parametrize("minor", MINORS)
def test_kubernetes_takes_every_object(
    rendered: dict[str, Rendered], minor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It reads its definitions anew for each object, a megabyte of them.
    monkeypatch.setattr(kubernetes_validate.utils, "schema_contents", cache(kubernetes_validate.utils.schema_contents))
    objects = {json.dumps(each, sort_keys=True) for install in rendered.values() for each in install}
    for each in map(json.loads, sorted(objects)):
        if each["kind"] not in FOREIGN:
            kubernetes_validate.validate(each, minor, strict=True)


@pytest.mark.parametrize("name", INSTALLS)
def test_helm_lint_has_nothing_to_say(name: str) -> None:
    report = helm_python.lint(CHART, merged(MINIMAL, INSTALLS[name]), strict=True)
    assert [m for m in report["messages"] if m["severity"] >= 2] == []
    assert report["errors"] == []


def test_no_two_objects_have_one_name(install: Rendered) -> None:
    names = Counter((each["kind"], each["metadata"]["name"]) for each in install)
    assert [name for name, count in names.items() if count > 1] == []


def test_no_object_is_left_without_its_labels(install: Rendered) -> None:
    for each in install:
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "posta"
        assert labels["app.kubernetes.io/instance"] == "posta"


def test_there_is_one_deployment_for_each_service_and_no_volume_on_it(rendered: dict[str, Rendered]) -> None:
    deployments = rendered["minimal"].kind("Deployment")
    assert set(deployments) == {f"posta-{service}" for service in SERVICES}
    for deployment in deployments.values():
        volumes = deployment["spec"]["template"]["spec"]["volumes"]
        assert not any("persistentVolumeClaim" in volume for volume in volumes)
    claiming = {
        each["metadata"]["name"] for each in rendered["minimal"] if "volumeClaimTemplates" in each.get("spec", {})
    }
    assert claiming == {"posta-nats", "posta-postgres"}


def test_every_pod_passes_the_restricted_standard(install: Rendered) -> None:
    for name, (_, spec) in install.pods().items():
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] > 0, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not spec.get("hostNetwork"), name
        allowed = {
            "configMap",
            "csi",
            "downwardAPI",
            "emptyDir",
            "ephemeral",
            "persistentVolumeClaim",
            "projected",
            "secret",
        }
        assert all(set(volume) - {"name"} <= allowed for volume in spec.get("volumes", [])), name
        for container in spec["containers"] + spec.get("initContainers", []):
            of = container["securityContext"]
            assert of["allowPrivilegeEscalation"] is False, name
            assert of["readOnlyRootFilesystem"] is True, name
            assert of["capabilities"] == {"drop": ["ALL"]}, name
            assert not any("hostPort" in port or port["containerPort"] < 1024 for port in container.get("ports", []))


def test_no_pod_has_a_token_or_the_names_of_its_neighbours(install: Rendered) -> None:
    for name, (_, spec) in install.pods().items():
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, name


def test_every_container_is_given_resources(install: Rendered) -> None:
    for name, (_, spec) in install.pods().items():
        for container in spec["containers"]:
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}, name
            assert "memory" in container["resources"]["limits"], name


def test_services_are_probed_on_the_health_port_and_alive_without_their_store(install: Rendered) -> None:
    for deployment in install.kind("Deployment").values():
        for container in deployment["spec"]["template"]["spec"]["containers"]:
            if not container["command"][-1].startswith("services."):
                continue
            paths = {}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                assert container[probe]["httpGet"]["port"] == "health"
                paths[probe] = container[probe]["httpGet"]["path"]
            assert paths == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}


def test_a_pod_waits_for_its_schema_and_is_given_time_to_drain(install: Rendered) -> None:
    for name in SERVICES:
        deployment = install.kind("Deployment").get(f"posta-{name}")
        if deployment is None:
            continue
        spec = deployment["spec"]["template"]["spec"]
        (schema,) = spec["initContainers"]
        (container,) = spec["containers"]
        assert schema["command"][-2:] == ["services.core.store.migrate", "--wait"]
        assert schema["image"] == container["image"]
        stop_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        grace_s = int(install.environment(f"posta-{name}")["POSTA_GRACE_S"])
        assert spec["terminationGracePeriodSeconds"] > stop_s + grace_s


def test_services_spread_over_zones_and_hosts_where_that_can_be(install: Rendered) -> None:
    for name, deployment in install.kind("Deployment").items():
        if name.removeprefix("posta-") in SERVICES:
            spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
            assert [s["topologyKey"] for s in spread] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
            assert {s["whenUnsatisfiable"] for s in spread} == {"ScheduleAnyway"}
            assert all(
                s["labelSelector"]["matchLabels"] == deployment["spec"]["selector"]["matchLabels"] for s in spread
            )


def test_evictions_are_bounded_and_never_blocked(install: Rendered) -> None:
    budgets = install.kind("PodDisruptionBudget")
    for name in install.kind("Deployment"):
        if name.removeprefix("posta-") in SERVICES:
            assert budgets[name]["spec"]["maxUnavailable"] == 1
            assert "minAvailable" not in budgets[name]["spec"]


def settings_of(install: Rendered, service: str) -> Settings:
    """What the service makes of its environment. Raises BadSettings."""
    return read({**install.environment(f"posta-{service}"), "POSTA_DATABASE_URL": "x", "POSTA_NATS_URL": "y"})


@pytest.mark.parametrize("service", SERVICES)
def test_posta_takes_the_settings_it_is_given(install: Rendered, service: str) -> None:
    if f"posta-{service}" not in install.kind("Deployment"):
        return
    settings = settings_of(install, service)
    assert settings.hostname == "mail.example.org"
    assert settings.health.port == 9090


def test_a_service_refuses_to_start_on_a_setting_that_the_schema_would_refuse(render: Render) -> None:
    with pytest.raises(helm_python.HelmValuesError, match="max_conections"):
        render({"settings": {"imap": {"max_conections": 1}}})


def test_settings_of_a_service_are_its_own(render: Render) -> None:
    values = {
        "settings": {"limits": {"message_size": 104857600}, "login": {"window_s": 60}},
        "services": {"mx": {"settings": {"limits": {"message_size": 20971520}}}},
    }
    made = render(values)
    assert made.environment("posta-mx")["POSTA_LIMITS_MESSAGE_SIZE"] == "20971520"
    assert made.environment("posta-imap")["POSTA_LIMITS_MESSAGE_SIZE"] == "104857600"
    assert made.environment("posta-mx")["POSTA_LOGIN_WINDOW_S"] == "60"


def test_mx_listens_and_relay_does_not(rendered: dict[str, Rendered]) -> None:
    images: dict[str, Any] = {}
    for name in ("mx", "relay"):
        (container,) = rendered["minimal"].kind("Deployment")[f"posta-{name}"]["spec"]["template"]["spec"]["containers"]
        images[name] = container["image"], container["command"]
    assert images["mx"] == images["relay"]
    assert rendered["minimal"].environment("posta-mx")["POSTA_MXROUTER_PORT"] == "2525"
    assert rendered["minimal"].environment("posta-relay")["POSTA_MXROUTER_PORT"] == "0"
    assert settings_of(rendered["minimal"], "mx").relay.enabled is False
    assert settings_of(rendered["minimal"], "relay").relay.enabled is True


def test_a_closed_door_is_closed_everywhere(rendered: dict[str, Rendered]) -> None:
    made = rendered["some"]
    assert made.environment("posta-imap")["POSTA_IMAP_PORT"] == "0"
    ports = {port["name"] for port in made.kind("Service")["posta-imap"]["spec"]["ports"]}
    assert ports == {"imaps"}
    assert "posta-pop" not in made.kind("Deployment")
