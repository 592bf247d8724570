"""The chart, rendered as helm renders it, and its objects by kind and name."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "posta"
NAMESPACE = "mail"
Tree = dict[str, Any]

MINIMAL: Tree = {"domain": "example.org"}
# Each a way somebody would install it; every test of a rule runs over all of them.
INSTALLS: dict[str, Tree] = {
    "minimal": {},
    "everything": {
        "image": {"registry": "registry.example.org/", "pullSecrets": ["pull"]},
        "commonLabels": {"team": "mail"},
        "commonAnnotations": {"owner": "postmaster"},
        "settings": {"log": {"level": "debug"}, "limits": {"message_size": 104857600}},
        "nats": {"members": 3, "exporter": {"enabled": True}},
        "postgres": {"exporter": {"enabled": True}},
        "clamd": {"enabled": True},
        "rspamd": {"enabled": True, "redis": "redis:6379"},
        "ingress": {"enabled": True, "className": "nginx"},
        "gateway": {"enabled": True, "parentRefs": [{"name": "mail", "namespace": "gateways"}]},
        "metrics": {"serviceMonitor": True, "podMonitor": True, "rules": True, "labels": {"release": "prometheus"}},
        "dashboards": {"enabled": True, "namespace": "monitoring"},
        "mtaSts": {"enabled": True, "mode": "enforce", "mx": ["mx1.example.org", "mx2.example.org"]},
        "canary": {"enabled": True, "publicAddresses": ["192.0.2.1"], "blocklists": ["bl.example.net"]},
        "provision": {
            "prune": True,
            "domains": [
                "example.com",
                {"domain": "example.org", "policy": {"heldMail": "accept", "notifySender": True, "digest": False}},
            ],
            "accounts": [
                {
                    "address": "a@example.org",
                    "passwordSecret": {"name": "people", "key": "a"},
                    "quota": 10 << 30,
                    "recipientsPerHour": 2_000_000,
                    "recipientsPerDay": None,
                }
            ],
            "dkim": [{"domain": "example.org", "selector": "s1", "secret": {"name": "dkim", "key": "s1.pem"}}],
            "aliases": [{"address": "info@example.org", "targets": ["a@example.org"]}],
        },
    },
    "external": {
        "postgres": {"enabled": False},
        "nats": {"enabled": False, "existingSecret": "nats", "members": 3, "networks": ["10.1.0.0/16"]},
        "database": {
            "existingSecret": "db-app",
            "existingSecretKey": "uri",
            "existingSecretDirectKey": "direct-uri",
            "existingSecretReadOnlyKey": "ro-uri",
            "networks": ["10.2.0.0/16"],
        },
        "tls": {"existingSecret": "mail-cert"},
        "dkim": {"existingSecret": "dkim"},
        "seal": {"existingSecret": "seal", "existingSecretFormerKey": "former"},
        "admin": {"existingSecret": "admin", "existingSecretKey": "token"},
        "clamd": {"addresses": ["clamd.scan:3310"]},
        "tracing": {"endpoint": "http://collector.tracing:4318", "share": 0.25, "peers": [{"namespaceSelector": {}}]},
        "serviceAccount": {"create": False, "name": "mail"},
    },
    "dsn": {
        "database": {
            "url": "postgresql://u:p@pooler:6432/posta?prepared_statements=off",
            "port": 6432,
            "directUrl": "postgresql://u:p@db:5432/posta",
            "directPort": 5432,
            "readOnlyUrl": "postgresql://u:p@db-ro:5432/posta",
        },
        "nats": {"url": "nats://nats.bus:4222", "members": 3},
    },
    "scaled": {
        "defaults": {"replicas": 3, "autoscaling": {"enabled": True, "minReplicas": 3}},
        "tls": {
            "certManager": {"enabled": True},
            "domains": [{"secret": "com-tls", "names": ["mail.example.com"]}, {"secret": "net-tls"}],
        },
        "nats": {"members": 3},
        "services": {"relay": {"nodeSelector": {"egress": "mail"}, "priorityClassName": "high"}},
    },
    "keda": {"defaults": {"autoscaling": {"enabled": True}}, "keda": {"enabled": True}},
    "proxied": {
        "exposure": {"mode": "shared", "externalTrafficPolicy": "Cluster", "ipFamilyPolicy": "RequireDualStack"},
        "proxyProtocol": {"networks": ["10.9.0.0/24", "fd00::/64"], "probes": True},
        "services": {"sync": {"proxyNetworks": []}},
        "canary": {"enabled": True},
    },
    "some": {
        "nats": {"exporter": {"enabled": True}},
        "metrics": {"podMonitor": True},
        "services": {"pop": {"enabled": False}, "sync": {"enabled": False}, "imap": {"ports": {"imap": 0}}},
        "networkPolicy": {"clients": [{"ipBlock": {"cidr": "203.0.113.0/24"}}]},
    },
}


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Tree:
    """`over` laid on `base`, as helm lays one values file on another."""
    made = copy.deepcopy(dict(base))
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(made.get(key), Mapping)
        made[key] = merged(made[key], value) if both else copy.deepcopy(value)
    return made


class Rendered:
    """The objects of one rendering."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self.notes = next((text for path, text in files.items() if path.endswith("NOTES.txt")), "")
        texts = [text for path, text in files.items() if path.endswith(".yaml")]
        self.objects: list[Tree] = [each for text in texts for each in yaml.safe_load_all(text) if each]

    def __iter__(self) -> Iterator[Tree]:
        return iter(self.objects)

    def kind(self, kind: str) -> dict[str, Tree]:
        """Objects of a kind by name."""
        return {each["metadata"]["name"]: each for each in self.objects if each["kind"] == kind}

    def pods(self) -> dict[str, tuple[Tree, Tree]]:
        """Metadata and spec of every pod that may run, by the name of what makes it."""
        made = {}
        for each in self.objects:
            name = f"{each['kind']}/{each['metadata']['name']}"
            if each["kind"] == "Pod":
                made[name] = each["metadata"], each["spec"]
            elif each["kind"] in ("Deployment", "StatefulSet", "Job"):
                made[name] = each["spec"]["template"]["metadata"], each["spec"]["template"]["spec"]
        return made

    def environment(self, deployment: str) -> dict[str, str]:
        """What the main container is told in plain text."""
        container = self.kind("Deployment")[deployment]["spec"]["template"]["spec"]["containers"][0]
        return {each["name"]: each["value"] for each in container["env"] if "value" in each}


Render = Callable[..., Rendered]


@pytest.fixture(scope="session")
def chart() -> Iterator[helm_python.Chart]:
    with helm_python.Chart.load(CHART) as chart:
        yield chart


@pytest.fixture(scope="session")
def render(chart: helm_python.Chart) -> Render:
    """Render with these values on top of a domain, as an install or as an upgrade."""

    def rendering(values: Mapping[str, Any] | None = None, *, upgrade: bool = False) -> Rendered:
        given = merged(MINIMAL, values or {})
        chart.validate_schema(given)
        files = chart.render(
            given, name="posta", namespace=NAMESPACE, is_install=not upgrade, is_upgrade=upgrade, revision=1 + upgrade
        )
        return Rendered(files)

    return rendering


@pytest.fixture(scope="session")
def rendered(render: Render) -> dict[str, Rendered]:
    """Every way of installing it, rendered once."""
    return {name: render(values) for name, values in INSTALLS.items()}


@pytest.fixture(params=list(INSTALLS))
def install(request: pytest.FixtureRequest, rendered: dict[str, Rendered]) -> Rendered:
    return rendered[request.param]
