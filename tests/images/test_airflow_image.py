"""The Airflow image has exactly the locked packages and this project's code, and no build tools."""

from __future__ import annotations

import json
import tomllib

import pytest

from tests.images.conftest import ROOT, run_in

USER = "50000:0"
# Runs in the image; prints the installed packages, and those that pyproject's dependencies need, also indirectly.
PACKAGES = """
import json, sys
from importlib.metadata import distribution, distributions
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

needed, queue = {}, [Requirement(text) for text in json.loads(sys.argv[1])]
while queue:
    requirement = queue.pop()
    name = canonicalize_name(requirement.name)
    extras = {"", *requirement.extras}
    if extras <= needed.get(name, set()):
        continue
    needed[name] = needed.get(name, set()) | extras
    for text in distribution(name).requires or []:
        dependency = Requirement(text)
        marker = dependency.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in needed[name]):
            queue.append(dependency)
installed = {canonicalize_name(d.metadata["Name"]): d.version for d in distributions()}
print(json.dumps({"installed": installed, "needed": sorted(needed)}))
"""


@pytest.fixture(scope="module")
def packages(images) -> dict:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    script = ["python", "-c", PACKAGES, json.dumps(project["dependencies"])]
    answer = run_in(images["AIRFLOW_IMAGE"].reference, USER, script)
    assert answer.status == 0, answer.output
    return json.loads(answer.output)


def run(images, *command: str):
    return run_in(images["AIRFLOW_IMAGE"].reference, USER, list(command))


def test_every_package_has_the_version_in_the_lock(packages):
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    locked = {package["name"]: package["version"] for package in lock["package"]}
    wrong = {name: version for name, version in packages["installed"].items() if locked.get(name) != version}
    assert wrong == {}


def test_no_package_is_installed_that_no_dependency_needs(packages):
    assert sorted(packages["installed"]) == packages["needed"]


def test_the_interpreter_is_python_3_13(images):
    answer = run(images, "python", "-c", "import sys; print('%d.%d' % sys.version_info[:2])")
    assert answer.output.strip() == "3.13"


def test_the_images_code_is_the_repositorys(images):
    script = "cd /opt/airflow/src && find . -name '*.py' | LC_ALL=C sort | xargs sha256sum"
    inside = run(images, "sh", "-c", script).output
    outside = sorted(path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*.py"))
    assert [line.split("./")[1] for line in inside.splitlines()] == outside
    assert run(images, "python", "-c", "import airflow_ha").status == 0


def test_the_image_has_no_compiler_and_no_package_installer(images):
    answer = run(images, "sh", "-c", "ls ${VIRTUAL_ENV}/bin; command -v cc gcc g++ make")
    assert not {"pip", "pip3", "uv"} & set(answer.output.split())
    assert "/" not in answer.output, "the image has a compiler"


def test_the_image_has_compiled_bytecode(images):
    cached = "import airflow, importlib.util as u; print(u.cache_from_source(airflow.__file__))"
    compiled = run(images, "python", "-c", cached).output.split()[-1]
    assert compiled.endswith(".pyc")
    assert run(images, "test", "-s", compiled).status == 0
