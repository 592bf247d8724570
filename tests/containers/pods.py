"""The platform as a cluster runs it: the pods that the chart renders, played by podman.

`make test-containers` prepares what this needs. Pods are on a bridge network and find each other by its DNS; their
ports are published on 127.0.0.1.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.chart.conftest import CHART, Rendered
from tests.containers.kubelet import Kubelet, Pod

REPO = Path(__file__).resolve().parents[2]
# What has an image and is ready once it runs; `admin` is verbs that end, and `dev` has no image.
SERVICES = sorted({p.parent.name for p in REPO.glob("services/*/__main__.py")} - {"admin", "dev"})
# What the chart makes a Deployment of.
DEPLOYMENTS = sorted(yaml.safe_load((CHART / "values.yaml").read_text())["services"])
DOMAIN = "posta.test"
HEALTH = 9090
PODMAN_ENV = {**os.environ, "CONTAINERS_CONF": str(Path(__file__).parent / "containers.conf")}


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


class Platform:
    """A release: its pods as they are seen from outside, and the verbs a test needs."""

    def __init__(self, release: str, rendered: Rendered, folder: Path) -> None:
        self.release, self._rendered = release, rendered
        self._kubelet = Kubelet(rendered, folder)
        self._pods: dict[str, Pod] = {}
        self.ca = folder / "ca.crt"
        self.ca.write_bytes(self._kubelet.secret(f"{release}-tls")["ca.crt"])
        self.token = self._kubelet.secret(f"{release}-generated")["admin-token"].decode()

    def install(self) -> None:
        """As `helm install` does, up to pods that are ready. Nothing waits for anything but as the chart says."""
        podman("network", "create", self.release)
        for name in self._named("StatefulSet"):
            self.play("StatefulSet", name)
        self.complete("migrate")
        for name in self._named("Deployment"):
            self.play("Deployment", name)
        for name in self._pods:
            if name not in self._named("StatefulSet", "-0"):
                self.until_ready(name)
        self.complete("provision")

    def _named(self, kind: str, end: str = "") -> list[str]:
        return [f"{name.removeprefix(self.release + '-')}{end}" for name in self._rendered.kind(kind)]

    def play(self, kind: str, name: str) -> None:
        """Start the pods of one of the chart's objects."""
        for pod in self._kubelet.pods(kind, f"{self.release}-{name}"):
            for first in pod.before:
                code, said = self._ended(first)
                assert code == 0, f"{first.name}: {said}"
            self._start(pod)
            self._pods[pod.name.removeprefix(f"{self.release}-")] = pod

    def run(self, kind: str, name: str) -> tuple[int, str]:
        """The exit code of the pod of an object that ends by itself, and what it said."""
        (pod,) = self._kubelet.pods(kind, f"{self.release}-{name}")
        for each in (*pod.before, pod):
            code, said = self._ended(each)
            if code:
                break
        return code, said

    def _start(self, pod: Pod) -> None:
        network = ",".join((f"{self.release}:alias={pod.name}", *(f"alias={each}" for each in pod.aliases)))
        # JSON is YAML.
        podman("kube", "play", "--network", network, "-", stdin=json.dumps(pod.manifest))

    def _ended(self, pod: Pod) -> tuple[int, str]:
        self._start(pod)
        code = int(podman("wait", pod.container).stdout)
        logs = podman("logs", pod.container)
        podman("pod", "rm", "--force", pod.name)
        return code, logs.stdout + logs.stderr

    def complete(self, job: str) -> None:
        """Run a Job, again where it fails, as its backoffLimit allows."""
        name = next(each for each in self._named("Job") if each.startswith(job))
        limit = self._rendered.kind("Job")[f"{self.release}-{name}"]["spec"]["backoffLimit"]
        for _ in range(limit):
            code, said = self.run("Job", name)
            if code == 0:
                return
        pytest.fail(f"{name} failed {limit} times: {said}")

    def port(self, pod: str, inside: int) -> int:
        """Where a pod's port is on 127.0.0.1; the first pod's, where it is named by its Deployment."""
        return self._pod(pod).ports[inside]

    def _pod(self, name: str) -> Pod:
        return self._pods.get(name) or self._pods[f"{name}-0"]

    def says(self, pod: str, inside: int, path: str) -> str:
        """What a page says; empty where it is refused or nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port(pod, inside)}{path}", timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    def until_ready(self, pod: str) -> None:
        """Wait until a pod says that it is ready."""
        ready = partial(self.says, pod, HEALTH, "/readyz")
        eventually(f"{pod} is ready", ready, last_words=partial(self.log, pod))

    def admin(self, path: str, what: Mapping[str, str]) -> None:
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

    def state(self, pod: str) -> dict[str, Any]:
        """podman's word on a pod's container."""
        found: dict[str, Any] = json.loads(podman("inspect", self._pod(pod).container).stdout)[0]["State"]
        return found

    def log(self, pod: str) -> str:
        """The end of what a pod has logged."""
        done = podman("logs", "--tail", "30", self._pod(pod).container, must=False)
        return done.stdout + done.stderr

    def down(self) -> None:
        """Remove every pod and the network."""
        pods = podman("pod", "ls", "--noheading", "--filter", f"name=^{self.release}-", "--format", "{{.Name}}")
        podman("pod", "rm", "--force", "--time", "0", *pods.stdout.split(), must=False)
        podman("network", "rm", "--force", self.release, must=False)
