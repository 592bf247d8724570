"""What an image holds is enough, and is what was tested: the files and the locked requirements of one service."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVICES = sorted(p.parent.name for p in ROOT.glob("services/*/__main__.py") if p.parent.name != "dev")

# Run among the files of one image: the service, all of it, and the migration Job's program are imported, while whatever
# the image does not install is absent. Of core that is the part this service uses.
IMPORT_ALL = """
import importlib, importlib.metadata, pkgutil, re, sys
service, *names = sys.argv[1:]
locked = set(names)
name_of = lambda text: re.sub(r"[-_.]+", "-", text).lower()
installed = importlib.metadata.packages_distributions()
absent = {module for module, owners in installed.items() if not locked & set(map(name_of, owners))} - {"services"}

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r} in this image", name=name)

sys.meta_path.insert(0, Absent())
package = importlib.import_module(f"services.{service}")
inside = [module.name for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
for name in (*inside, "services.core.store.migrate"):
    print(importlib.import_module(name).__file__)
"""


def locked(path: Path) -> dict[str, str]:
    """Name and version of each requirement of a lock."""
    return dict(re.findall(r"(?m)^([a-z0-9-]+)==(\S+)", path.read_text()))


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_has_all_that_its_service_imports(service: str, tmp_path: Path) -> None:
    ignore = shutil.ignore_patterns("__pycache__")
    for part in ("core", "contracts", service):
        shutil.copytree(ROOT / "services" / part, tmp_path / "services" / part, ignore=ignore)
    shutil.copy(ROOT / "services/__init__.py", tmp_path / "services/__init__.py")
    requirements = locked(ROOT / f"docker/requirements/{service}.txt")
    command = (sys.executable, "-c", IMPORT_ALL, service, *requirements)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    files = done.stdout.split()
    assert str(tmp_path / f"services/{service}/__main__.py") in files
    assert all(file.startswith(str(tmp_path)) for file in files)


@pytest.mark.parametrize("name", ["core", *SERVICES])
def test_an_image_installs_what_was_tested(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["dependencies"] + project["optional-dependencies"].get(name, [])
    requirements = locked(ROOT / f"docker/requirements/{name}.txt")
    missing = {re.split(r"[^A-Za-z0-9._-]", each)[0].lower() for each in declared} - requirements.keys()
    assert not missing, "run `make lock`"
    assert requirements.items() <= locked(ROOT / "requirements.lock").items(), "run `make lock`"


def test_every_service_can_be_an_image() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    kept = {path.stem for path in (ROOT / "docker/requirements").glob("*.txt")}
    assert kept == {"core", *SERVICES}
    assert set(SERVICES) <= extras.keys()
