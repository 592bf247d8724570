"""Migrations, provisioning, scaling and the test: what runs when."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path
from typing import Any

import helm_python
import pytest

from services.admin.declared import read
from services.core.settings import read as settings
from tests.chart.conftest import INSTALLS, Render, Rendered


def hooks(each: dict[str, Any]) -> set[str]:
    return set(filter(None, each["metadata"].get("annotations", {}).get("helm.sh/hook", "").split(",")))


def test_an_external_database_is_migrated_before_anything_else(rendered: dict[str, Rendered]) -> None:
    for name in ("external", "dsn"):
        job = rendered[name].kind("Job")["posta-migrate"]
        assert hooks(job) == {"pre-install", "pre-upgrade"}
        assert job["spec"]["backoffLimit"] == 6
        assert job["spec"]["activeDeadlineSeconds"] == 3600


def test_what_a_hook_reads_is_there_before_it(rendered: dict[str, Rendered]) -> None:
    made = rendered["dsn"]
    (container,) = made.kind("Job")["posta-migrate"]["spec"]["template"]["spec"]["containers"]
    assert {each["valueFrom"]["secretKeyRef"]["name"] for each in container["env"]} == {"posta-migrate"}
    secret = made.kind("Secret")["posta-migrate"]
    assert hooks(secret) == {"pre-install", "pre-upgrade"}
    assert int(secret["metadata"]["annotations"]["helm.sh/hook-weight"]) < 0
    assert secret["stringData"]["database-direct-url"] == "postgresql://u:p@db:5432/posta"
    assert made.kind("Job")["posta-migrate"]["spec"]["template"]["spec"]["serviceAccountName"] == "default"


def test_the_bundled_database_is_migrated_once_it_is_there(render: Render) -> None:
    (first,) = (job for name, job in render().kind("Job").items() if name.startswith("posta-migrate"))
    assert hooks(first) == set()
    assert hooks(render(upgrade=True).kind("Job")["posta-migrate"]) == {"pre-upgrade"}


def test_a_job_that_changed_has_another_name(render: Render) -> None:
    names = [
        {name for name in render({"image": {"tag": tag}}).kind("Job") if name.startswith("posta-migrate")}
        for tag in ("1", "2")
    ]
    assert not names[0] & names[1]


def test_what_is_declared_is_what_the_job_reads(rendered: dict[str, Rendered]) -> None:
    made = rendered["everything"]
    job = made.kind("Job")["posta-provision"]
    assert hooks(job) == {"post-install", "post-upgrade"}
    spec = job["spec"]["template"]["spec"]
    assert spec["containers"][0]["args"] == ["apply", "/declared/declared.yaml", "--prune"]
    declared = read(made.kind("ConfigMap")["posta-provision"]["data"]["declared.yaml"])
    assert declared.names == ("example.org", "example.com")
    assert declared.domains[2].policy.model_dump() == {"held_mail": "accept", "notify_sender": True, "digest": False}
    first = declared.accounts[0]
    assert (first.quota, first.recipients_per_hour, first.recipients_per_day) == (10 << 30, 2_000_000, None)
    assert [account.address for account in declared.accounts] == ["a@example.org", "posta-canary@example.org"]
    assert str(declared.accounts[0].password_file) == "/secrets/0"
    (secrets,) = (volume["projected"] for volume in spec["volumes"] if volume["name"] == "secrets")
    assert secrets["sources"] == [
        {"secret": {"name": "people", "items": [{"key": "a", "path": "0"}]}},
        {"secret": {"name": "dkim", "items": [{"key": "s1.pem", "path": "dkim-0"}]}},
    ]
    assert str(declared.dkim[0].key_file) == "/secrets/dkim-0"
    assert "posta-provision" in rendered["minimal"].kind("Job")


def test_helm_test_is_the_journey_of_a_message(install: Rendered) -> None:
    (pod,) = install.kind("Pod").values() or [None]
    assert hooks(pod) == {"test"}
    (container,) = pod["spec"]["containers"]
    assert (container["command"][-1], container["args"]) == ("services.admin", ["journey"])
    told = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    probe = settings({**told, "POSTA_DATABASE_URL": "x"}).probe
    assert probe.submission == "posta-submission:465"
    assert probe.imap == "posta-imap-pods:2993"
    # Where it can look into quarantine it has the token to do so.
    has_token = any(each["name"] == "POSTA_SYNC_ADMIN_TOKEN" for each in container["env"])
    assert (probe.admin == "posta-sync:443") == has_token
    assert install.kind("Service")["posta-imap-pods"]["spec"]["clusterIP"] == "None"


def test_helm_test_looks_into_quarantine_where_it_can(rendered: dict[str, Rendered]) -> None:
    found = {}
    for name, install in rendered.items():
        env = install.kind("Pod")["posta-test"]["spec"]["containers"][0]["env"]
        found[name] = any(each["name"] == "POSTA_PROBE_ADMIN" for each in env)
    # No sync service; and one that takes another PROXY header than the other doors.
    assert {name for name, looks in found.items() if not looks} == {"some", "proxied"}
    canary = rendered["everything"].kind("Deployment")["posta-canary"]["spec"]["template"]["spec"]["containers"][0]
    assert not any("ADMIN" in each["name"] for each in canary["env"])


def test_the_probe_is_given_the_authority_and_not_the_key(rendered: dict[str, Rendered]) -> None:
    (volume,) = (v for v in rendered["minimal"].kind("Pod")["posta-test"]["spec"]["volumes"] if v["name"] == "tls")
    assert volume["secret"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}]


# ---- scaling ---------------------------------------------------------------------------------------------------

MEASURES = {
    "imap": "posta_imap_connections",
    "pop": "posta_pop_connections",
    "submission": "posta_submission_connections",
    "mx": "posta_mxrouter_connections",
    "filter": "posta_filter_scans_in_hand",
    "delivery": "posta_delivery_work_pending",
    "relay": "posta_delivery_spool_overdue_seconds",
    "sync": "posta_sync_requests_per_second",
}


SECOND = {"submission": ["posta_submission_messages_in_hand"], "mx": ["posta_mxrouter_messages_in_hand"]}


def measure(metric: dict[str, Any]) -> str:
    return str(metric.get("pods", metric.get("external", {})).get("metric", {}).get("name", ""))


@pytest.mark.parametrize(("service", "name"), MEASURES.items())
def test_each_service_scales_by_its_own_measure_and_by_cpu(
    rendered: dict[str, Rendered], service: str, name: str
) -> None:
    scaler = rendered["scaled"].kind("HorizontalPodAutoscaler")[f"posta-{service}"]["spec"]
    own, *more, cpu = scaler["metrics"]
    assert measure(own) == name
    assert list(map(measure, more)) == SECOND.get(service, [])
    assert cpu["resource"]["name"] == "cpu"
    assert scaler["scaleTargetRef"]["name"] == f"posta-{service}"
    assert scaler["minReplicas"] == 3
    assert "replicas" not in rendered["scaled"].kind("Deployment")[f"posta-{service}"]["spec"]


def test_imap_shrinks_slowly(rendered: dict[str, Rendered]) -> None:
    behavior = rendered["scaled"].kind("HorizontalPodAutoscaler")["posta-imap"]["spec"]["behavior"]
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] == 1800
    assert behavior["scaleDown"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 600}]


def test_keda_scales_by_the_same_measures(rendered: dict[str, Rendered]) -> None:
    made = rendered["keda"].kind("ScaledObject")
    assert set(made) == {f"posta-{service}" for service in MEASURES}
    assert not rendered["keda"].kind("HorizontalPodAutoscaler")
    for service, name in MEASURES.items():
        triggers = made[f"posta-{service}"]["spec"]["triggers"]
        queries = [each["metadata"]["query"] for each in triggers if each["type"] == "prometheus"]
        for wanted, query in zip([name, *SECOND.get(service, [])], queries, strict=True):
            assert wanted.removesuffix("_per_second") in query
            assert 'namespace="mail"' in query
    # More pods do not make a message younger; they do divide what is pending.
    kinds = {name: each["spec"]["triggers"][0]["metricType"] for name, each in made.items()}
    assert {name for name, kind in kinds.items() if kind == "Value"} == {"posta-relay"}
    assert set(kinds.values()) == {"Value", "AverageValue"}


def test_a_measure_that_a_service_has_not_is_refused(render: Render) -> None:
    with pytest.raises(helm_python.HelmRenderError, match=r"services\.imap\.autoscaling\.messages"):
        render({"services": {"imap": {"autoscaling": {"enabled": True, "messages": 5}}}})


def test_without_autoscaling_the_number_is_fixed(rendered: dict[str, Rendered]) -> None:
    assert not rendered["minimal"].kind("HorizontalPodAutoscaler")
    assert rendered["minimal"].kind("Deployment")["posta-imap"]["spec"]["replicas"] == 2


# ---- NATS and Postgres -----------------------------------------------------------------------------------------


def test_three_members_know_each_other_and_keep_each_stream_three_times(rendered: dict[str, Rendered]) -> None:
    made = rendered["everything"]
    assert made.kind("StatefulSet")["posta-nats"]["spec"]["replicas"] == 3
    config = made.kind("ConfigMap")["posta-nats"]["data"]["nats.conf"]
    for member in range(3):
        assert f"nats://posta-nats-{member}.posta-nats:6222" in config
    assert made.environment("posta-delivery")["POSTA_NATS_REPLICAS"] == "3"
    assert "cluster {" not in rendered["minimal"].kind("ConfigMap")["posta-nats"]["data"]["nats.conf"]


@pytest.mark.parametrize("members", [1, 3])
def test_nats_takes_its_configuration(render: Render, tmp_path: Path, members: int) -> None:
    made = render({"nats": {"members": members}})
    config = made.kind("ConfigMap")["posta-nats"]["data"]["nats.conf"].replace("/data", str(tmp_path / "data"))
    (tmp_path / "nats.conf").write_text(config)
    secrets = {
        key: base64.b64decode(value).decode() for key, value in made.kind("Secret")["posta-generated"]["data"].items()
    }
    told = {"PASSWORD": secrets["nats-password"], "CLUSTER_PASSWORD": secrets["nats-cluster-password"]}
    (container,) = made.kind("StatefulSet")["posta-nats"]["spec"]["template"]["spec"]["containers"]
    assert {each["name"] for each in container["env"]} == {"MEMBER", *told}
    done = subprocess.run(
        (Path(sys.executable).with_name("nats-server"), "-t", "-c", tmp_path / "nats.conf"),
        env={"MEMBER": "posta-nats-0", **told},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_an_external_bus_is_told_how_many_keep_a_stream(rendered: dict[str, Rendered]) -> None:
    assert rendered["external"].environment("posta-mx")["POSTA_NATS_REPLICAS"] == "3"


@pytest.mark.parametrize("name", INSTALLS)
def test_every_config_map_that_is_mounted_is_there(rendered: dict[str, Rendered], name: str) -> None:
    made = rendered[name]
    maps = set(made.kind("ConfigMap"))
    for _, spec in made.pods().values():
        assert {volume["configMap"]["name"] for volume in spec.get("volumes", []) if "configMap" in volume} <= maps
