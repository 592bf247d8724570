"""The platform as a cluster runs it: one pod per service, played by podman from Kubernetes manifests.

`make test-containers` prepares what this needs. Pods are on a bridge network and find each other by its DNS; doors are
published on 127.0.0.1. Every service has a read-only root, without even a /tmp, and no capability.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import time
import tomllib
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from services.core.tls import DevCertificate

REPO = Path(__file__).resolve().parents[2]
# What runs and is ready; `admin` is verbs that end, and `dev` has no image.
SERVICES = sorted({p.parent.name for p in REPO.glob("services/*/__main__.py")} - {"admin", "dev"})
DOMAIN = "posta.test"
USER = 10001
HEALTH = 9090
PODMAN_ENV = {**os.environ, "CONTAINERS_CONF": str(Path(__file__).parent / "containers.conf")}
LOCKED_DOWN = {
    "readOnlyRootFilesystem": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
}


class User(NamedTuple):
    """A mailbox of the platform under test."""

    address: str
    password: str


def podman(*words: str, stdin: str = "", must: bool = True) -> subprocess.CompletedProcess[str]:
    """Run podman; the test fails where it does, unless it need not succeed."""
    done = subprocess.run(
        ("podman", *words), input=stdin, env=PODMAN_ENV, capture_output=True, text=True, timeout=120, check=False
    )
    assert not must or done.returncode == 0, f"podman {' '.join(words)}: {done.stderr}"
    return done


def eventually(
    what: str, holds: Callable[[], Any], timeout_s: float = 60.0, last_words: Callable[[], str] = str
) -> Any:
    """The first true value of `holds()`; where none comes in time the test fails, with `last_words()`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := holds():
            return value
        time.sleep(0.1)
    return pytest.fail(f"not within {timeout_s:g} s: {what}\n{last_words()}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Platform:
    """A running platform: its doors as they are seen from outside, and the verbs a test needs."""

    network: str
    tls: DevCertificate
    env: dict[str, str] = field(default_factory=dict)
    ports: dict[tuple[str, int], int] = field(default_factory=dict)
    """(service, port inside) -> port on 127.0.0.1."""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    def pod(self, name: str, image: str, ports: tuple[int, ...] = (), **container: Any) -> dict[str, Any]:
        """A manifest; `container` is what its only container has besides."""
        for port in ports:
            self.ports[name, port] = free_port()
        published = [
            {"containerPort": port, "hostPort": self.ports[name, port], "hostIP": "127.0.0.1"} for port in ports
        ]
        main = {"name": "main", "image": f"localhost/{image}", "imagePullPolicy": "Never", "ports": published}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": self.host(name)},
            "spec": {
                "containers": [main | container],
                "volumes": [{"name": "tls", "hostPath": {"path": str(self.tls.cert.parent), "type": "Directory"}}],
            },
        }

    def service(self, name: str, ports: tuple[int, ...] = (), **container: Any) -> dict[str, Any]:
        """The pod of one of our services."""
        return self.pod(
            name,
            f"posta/{container.pop('image', name)}:test",
            ports,
            env=[{"name": key, "value": value} for key, value in self.env.items()],
            volumeMounts=[{"name": "tls", "mountPath": "/etc/posta/tls", "readOnly": True}],
            securityContext=LOCKED_DOWN,
            **container,
        )

    def host(self, name: str) -> str:
        """The name by which pods find each other, and podman them."""
        return f"{self.network}-{name}"

    def container(self, name: str) -> str:
        return f"{self.host(name)}-main"

    def play(self, *pods: dict[str, Any]) -> None:
        """Start the pods."""
        # JSON is YAML; the documents of a file are split by dashes.
        manifest = "\n---\n".join(map(json.dumps, pods))
        podman("kube", "play", "--network", self.network, "-", stdin=manifest)

    def port(self, name: str, inside: int) -> int:
        return self.ports[name, inside]

    def says(self, name: str, inside: int, path: str) -> str:
        """What a page says; empty where it is refused or nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port(name, inside)}{path}", timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    def until_ready(self, name: str) -> None:
        """Wait until a service says that it is ready."""
        ready = partial(self.says, name, HEALTH, "/readyz")
        eventually(f"{name} is ready", ready, last_words=partial(self.log, name))

    def admin(self, path: str, what: dict[str, str]) -> None:
        """POST to the admin API."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port('sync', 2080)}/api/v1/{path}",
            data=json.dumps(what).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert answer.status == 201

    def add_user(self) -> User:
        """A new account."""
        user = User(f"user-{secrets.token_hex(4)}@{DOMAIN}", "correct horse")
        self.admin("accounts", {"address": user.address, "password": user.password})
        return user

    def state(self, name: str) -> dict[str, Any]:
        """podman's word on a container."""
        found: dict[str, Any] = json.loads(podman("inspect", self.container(name)).stdout)[0]["State"]
        return found

    def log(self, name: str) -> str:
        """The end of what a container has logged."""
        done = podman("logs", "--tail", "30", self.container(name), must=False)
        return done.stdout + done.stderr

    def down(self) -> None:
        """Remove every pod and the network."""
        pods = podman("pod", "ls", "--noheading", "--filter", f"name=^{self.network}-", "--format", "{{.Name}}")
        podman("pod", "rm", "--force", "--time", "0", *pods.stdout.split(), must=False)
        podman("network", "rm", "--force", self.network, must=False)


def doors() -> dict[str, tuple[int, ...]]:
    """The ports on which an image of each service listens, by its own settings file."""
    told = tomllib.loads((REPO / "docker/posta.toml").read_text())
    return {name: (*told.get(name, {}).values(), HEALTH) for name in SERVICES}
