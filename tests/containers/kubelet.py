"""The chart's objects as pods that podman 4 can play: it stands in for the controllers, the kubelet and cluster DNS.

What is played is what the chart renders, but for this, each because podman cannot:

- Deployments, StatefulSets and Jobs become their pods: there are no controllers.
- Init containers become pods of their own, to end before: in a pod that is restarted podman restarts them for ever.
- Volumes become folders of this machine, owned as `fsGroup` says: podman crashes on a volume from a Secret, gives an
  emptyDir to every pod that has one of that name, and knows no fsGroup.
- Variables from Secrets become their values: podman does not read a Secret that it was given to play.
- What a pod's security context says, each container's says: podman looks there alone.
- Probes and hooks are left out: podman would run the first by a `curl` inside of the container, and has none of the
  second. Tests ask for readiness from outside.
- A port is published on 127.0.0.1, on a free one: podman would take that very port of every address.
- The names of Services become names of their pods. Nothing maps ports, so Services must have those of their pods.
"""

from __future__ import annotations

import copy
import os
import socket
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import NamedTuple

from tests.chart.conftest import Rendered, Tree

_NOT_PLAYED = ("livenessProbe", "readinessProbe", "startupProbe", "lifecycle")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _manifest(name: str, labels: Mapping[str, str], spec: Tree) -> Tree:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


def _ending(spec: Tree, container: Tree) -> Tree:
    return {**spec, "containers": [container], "restartPolicy": "Never"}


class Pod(NamedTuple):
    """A pod to play once `before` have ended well, the names that lead to it, (port inside) -> port on 127.0.0.1."""

    name: str
    manifest: Tree
    aliases: tuple[str, ...]
    ports: Mapping[int, int]
    before: tuple[Pod, ...]

    @property
    def container(self) -> str:
        """podman's name of its only container beside those that have ended."""
        return f"{self.name}-{self.manifest['spec']['containers'][0]['name']}"


@dataclass
class Kubelet:
    """The pods of a rendering; `folder` holds their volumes."""

    rendered: Rendered
    folder: Path
    _claims: dict[str, Path] = field(default_factory=dict)

    def pods(self, kind: str, name: str) -> list[Pod]:
        """The pods of one object, as many as it has replicas."""
        made = self.rendered.kind(kind)[name]
        if kind == "Pod":
            return [self._pod(name, made["metadata"], made["spec"], {}, ())]
        template = made["spec"]["template"]
        claims = {each["metadata"]["name"]: each for each in made["spec"].get("volumeClaimTemplates", [])}
        if kind == "Job":
            return [self._pod(name, template["metadata"], template["spec"], {}, ())]
        return [
            self._pod(
                f"{name}-{number}",
                template["metadata"],
                template["spec"],
                {volume: f"{volume}-{name}-{number}" for volume in claims},
                (f"{name}-{number}.{made['spec']['serviceName']}",) if kind == "StatefulSet" else (),
            )
            for number in range(made["spec"]["replicas"])
        ]

    def _pod(self, name: str, metadata: Tree, spec: Tree, claims: Mapping[str, str], aliases: tuple[str, ...]) -> Pod:
        spec = copy.deepcopy(spec)
        security = spec.pop("securityContext", {})
        ports: dict[int, int] = {}
        for each in (*spec.get("initContainers", ()), *spec["containers"]):
            for key in _NOT_PLAYED:
                each.pop(key, None)
            each["securityContext"] = security | each.get("securityContext", {})
            each["env"] = [self._variable(one) for one in each.get("env", ())]
            for port in each.get("ports", ()):
                ports[port["containerPort"]] = port["hostPort"] = free_port()
                port["hostIP"] = "127.0.0.1"
        owner = security["fsGroup"]
        folder = Path(mkdtemp(prefix=f"{name}-", dir=self.folder))
        folder.chmod(0o755)
        volumes = {each["name"]: self._volume(folder / each["name"], each, owner) for each in spec.pop("volumes", ())}
        volumes |= {volume: self._claim(claim, owner) for volume, claim in claims.items()}
        spec["volumes"] = [
            {"name": volume, "hostPath": {"path": str(path), "type": "Directory"}} for volume, path in volumes.items()
        ]
        before = tuple(
            Pod(f"{name}-{each['name']}", manifest, (), {}, ())
            for each in spec.pop("initContainers", ())
            for manifest in [_manifest(f"{name}-{each['name']}", {}, _ending(spec, each))]
        )
        aliases = (*aliases, *self._services(metadata["labels"]))
        return Pod(name, _manifest(name, metadata["labels"], spec), aliases, ports, before)

    def _services(self, labels: Mapping[str, str]) -> Iterator[str]:
        for name, service in self.rendered.kind("Service").items():
            if service["spec"]["selector"].items() <= labels.items():
                for port in service["spec"]["ports"]:
                    assert self._target(labels, port) == port["port"], f"{name}: nothing maps ports here"
                yield name

    def _target(self, labels: Mapping[str, str], port: Tree) -> int:
        """The number of the port that a Service's port leads to, in the pods with these labels."""
        for metadata, spec in self.rendered.pods().values():
            if metadata["labels"].items() >= labels.items():
                for each in spec["containers"][0].get("ports", ()):
                    if each["name"] == port["targetPort"]:
                        return int(each["containerPort"])
        raise AssertionError(f"no pod has a port {port['targetPort']}")

    def _variable(self, variable: Tree) -> Tree:
        reference = variable.get("valueFrom", {}).get("secretKeyRef")
        if reference is None:
            return variable
        return {"name": variable["name"], "value": self.secret(reference["name"])[reference["key"]].decode()}

    def secret(self, name: str) -> dict[str, bytes]:
        """What a Secret of the chart holds."""
        return {key: b64decode(value) for key, value in self.rendered.kind("Secret")[name]["data"].items()}

    # ---- volumes ---------------------------------------------------------------------------------------------------

    def _claim(self, name: str, owner: int) -> Path:
        """A folder that outlives its pod."""
        if name not in self._claims:
            self._claims[name] = self._empty(self.folder / "claims" / name, owner)
        return self._claims[name]

    def _volume(self, folder: Path, volume: Tree, owner: int) -> Path:
        self._empty(folder, owner)
        kinds = volume.keys() - {"name"}
        assert kinds <= {"emptyDir", "secret", "configMap"}, f"{folder}: a volume of {kinds}"
        if "emptyDir" in kinds:
            return folder
        if "secret" in kinds:
            source, held = volume["secret"], self.secret(volume["secret"]["secretName"])
        else:
            source = volume["configMap"]
            found = self.rendered.kind("ConfigMap")[source["name"]]["data"]
            held = {key: text.encode() for key, text in found.items()}
        items = source.get("items") or [{"key": key, "path": key} for key in held]
        for item in items:
            path = folder / item["path"]
            path.write_bytes(held[item["key"]])
            # The kubelet lets the group read whatever the mode says.
            path.chmod(source.get("defaultMode", 0o644) | 0o040)
            os.chown(path, 0, owner)
        return folder

    @staticmethod
    def _empty(folder: Path, owner: int) -> Path:
        folder.mkdir(parents=True)
        os.chown(folder, 0, owner)
        folder.chmod(0o2777)
        return folder
