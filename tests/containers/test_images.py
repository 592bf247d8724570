"""What an image is, and what it is not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.containers.pods import REPO, SERVICES, podman

MB = 1_000_000


def inspected(service: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(podman("image", "inspect", f"localhost/posta/{service}:test").stdout)[0]
    return found


def runs(service: str, program: str, *words: str) -> tuple[int, str]:
    """Exit code and output of a program in a container of that image, on a read-only root, without a network."""
    locked = ("--rm", "--read-only", "--read-only-tmpfs=false", "--cap-drop", "all", "--network", "none")
    image = f"localhost/posta/{service}:test"
    done = podman("run", *locked, "--entrypoint", program, image, *words, must=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_is_small_and_labelled(service: str) -> None:
    image = inspected(service)

    assert image["Size"] < 200 * MB
    assert image["Config"]["User"] == "10001:10001"
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in image["Config"]["Labels"].items()}
    assert labels["title"] == f"Posta {service}"
    assert labels["version"] == "test"
    assert labels["licenses"] == "Apache-2.0"
    assert labels["revision"] != "unknown"


def test_images_share_all_that_every_service_needs() -> None:
    layers = {service: inspected(service)["RootFS"]["Layers"] for service in SERVICES}

    base, core, *_ = layers["imap"]
    assert all(each[:2] == [base, core] for each in layers.values())


@pytest.mark.parametrize("program", ["sh", "bash", "perl", "apt-get", "pip", "/opt/tools/bin/pip"])
def test_an_image_has_no_shell_and_installs_nothing(program: str) -> None:
    code, said = runs("imap", program)

    assert code == 127, said


LOOK = """
import importlib.metadata, json, pathlib, re
names = [re.sub(r"[-_.]+", "-", each.metadata["Name"]).lower() for each in importlib.metadata.distributions()]
files = {each.name for each in pathlib.Path("/srv/services").iterdir()}
sources = {each.stem for each in pathlib.Path("/srv").rglob("*.py")}
compiled = {each.name.partition(".")[0] for each in pathlib.Path("/srv").rglob("*.pyc")}
print(json.dumps([sorted(names), sorted(files), sorted(sources - compiled)]))
"""


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_holds_one_service_and_its_own_packages(service: str) -> None:
    code, said = runs(service, "python", "-c", LOOK)

    assert code == 0, said
    names, files, not_compiled = json.loads(said)
    lock = (REPO / f"docker/requirements/{service}.txt").read_text()
    assert set(names) <= {line.partition("==")[0] for line in lock.splitlines()}
    assert set(files) - {"__pycache__"} == {"__init__.py", "contracts", "core", service}
    assert not_compiled == []


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_not_set_is_said_in_one_line(service: str) -> None:
    code, said = runs(service, "python", "-m", "service")

    assert (code, said) == (2, "posta: POSTA_DATABASE_URL: expected a value, it is not set\n")
