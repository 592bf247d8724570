"""`skaffold dev`: it builds exactly what the chart runs, from what is there."""

from __future__ import annotations

import re
from typing import Any

import helm_python
import pytest
import yaml

from tests.chart.conftest import NAMESPACE, ROOT, Rendered

SKAFFOLD: dict[str, Any] = yaml.safe_load((ROOT / "skaffold.yaml").read_text())
(RELEASE,) = SKAFFOLD["deploy"]["helm"]["releases"]
# The words of its schema (skaffold/v4beta11) that are used here: another one is most likely a slip.
WORDS = {
    "": {"apiVersion", "kind", "metadata", "build", "deploy"},
    "build": {"artifacts", "tagPolicy", "local"},
    "build.local": {"useBuildkit"},
    "build.artifacts": {"image", "docker"},
    "build.artifacts.docker": {"dockerfile", "buildArgs"},
    "deploy.helm.releases": {
        "name",
        "chartPath",
        "namespace",
        "createNamespace",
        "valuesFiles",
        "setValueTemplates",
    },
}


@pytest.mark.parametrize("path", WORDS)
def test_it_says_nothing_that_skaffold_does_not_know(path: str) -> None:
    found: list[Any] = [SKAFFOLD]
    for word in filter(None, path.split(".")):
        found = [one for each in found for one in ([each[word]] if isinstance(each[word], dict) else each[word])]
    assert {key for each in found for key in each} <= WORDS[path]


def test_every_artifact_is_one_service_of_ours() -> None:
    for artifact in SKAFFOLD["build"]["artifacts"]:
        service = artifact["docker"]["buildArgs"]["SERVICE"]
        assert artifact["image"] == f"posta/{service}"
        assert (ROOT / artifact["docker"]["dockerfile"]).is_file()
        assert (ROOT / "services" / service / "__main__.py").is_file()
        assert (ROOT / "docker/requirements" / f"{service}.txt").is_file()


def test_what_is_built_is_what_runs_and_under_one_tag(chart: helm_python.Chart) -> None:
    assert ROOT / RELEASE["chartPath"] == ROOT / "charts/posta"
    (path,) = RELEASE["valuesFiles"]
    values = yaml.safe_load((ROOT / path).read_text())
    # One template makes the tag of what is built and of what runs.
    template = SKAFFOLD["build"]["tagPolicy"]["envTemplate"]["template"]
    assert RELEASE["setValueTemplates"] == {"image.tag": template}
    default = re.fullmatch(r'\{\{ default "(\w+)" \.POSTA_TAG \}\}', template)
    assert default is not None
    values["image"]["tag"] = default[1]
    chart.validate_schema(values)
    rendered = Rendered(chart.render(values, name=RELEASE["name"], namespace=NAMESPACE, is_install=True, revision=1))
    images = {
        container["image"]
        for _, spec in rendered.pods().values()
        for container in spec["containers"] + spec.get("initContainers", [])
    }
    ours = {image for image in images if image.startswith("posta/")}
    assert ours == {f"{artifact['image']}:{default[1]}" for artifact in SKAFFOLD["build"]["artifacts"]}
    assert len(images - ours) == 2  # Postgres and NATS
