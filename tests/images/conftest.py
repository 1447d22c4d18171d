"""The images of this machine, official or fallback, and one way to run a command in them."""

from __future__ import annotations

import fcntl
import os
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

from ops.images.resolve import OPTIONAL, ResolvedImage, resolve_images
from ops.services import PROFILES
from tests.docker_session import session_name

ROOT = Path(__file__).resolve().parents[2]
# Modules whose tests each have their own containers, or none.
SPREAD = frozenset({"test_alert_rules", "test_alertmanager", "test_contract"})
LONGEST = ("test_backup", "test_after_restore", "test_restore", "test_maintenance", "test_data_ha", "test_redis_users")
"""Modules to begin with: they take minutes in one process, beside which the others run."""
# The restrictions that the compose files set for every service.
RESTRICTIONS = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--init")


@dataclass(frozen=True)
class Answer:
    status: int
    output: str


def docker(*arguments: str, seconds: float = 120) -> Answer:
    done = subprocess.run(
        ["docker", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        check=False,
    )
    return Answer(done.returncode, done.stdout)


def run_in(reference: str, user: str, command: list[str], *options: str) -> Answer:
    """Run one command with the compose files' restrictions and no network, in place of the image's entrypoint."""
    placed = ("run", "--rm", "--network", "none", "--user", user, *RESTRICTIONS, *options)
    return docker(*placed, "--entrypoint", command[0], reference, *command[1:])


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of images, and keep a module's tests in one process, except those of SPREAD, which are last."""
    ranks = {name: rank for rank, name in enumerate((*LONGEST, "the others", *sorted(SPREAD)))}
    own = [item for item in items if item.path.parent == Path(__file__).parent]
    for item in own:
        item.add_marker(pytest.mark.images)
        if item.path.stem not in SPREAD:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    ordered = iter(sorted(own, key=lambda item: ranks.get(item.path.stem, ranks["the others"])))
    own_ids = {item.nodeid for item in own}
    items[:] = [next(ordered) if item.nodeid in own_ids else item for item in items]


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> dict[str, ResolvedImage]:
    """Every image; only one of several test processes builds it."""
    with (tmp_path_factory.getbasetemp().parent / "images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return resolve_images(ROOT, print, profiles=PROFILES)


@pytest.fixture(scope="session")
def program(images, tmp_path_factory):
    """A program out of an image, to run beside the test: one file, which runs on any Linux as new as Debian 12."""

    def extract(key: str, path: str) -> str:
        container = docker("create", images[key].reference).output.strip().splitlines()[-1]
        target = tmp_path_factory.mktemp("program") / Path(path).name
        copied = docker("cp", "--follow-link", f"{container}:{path}", str(target))
        assert copied.status == 0, copied.output
        assert docker("rm", "--volumes", container).status == 0
        return str(target)

    return extract


@pytest.fixture
def reference(images, key) -> str:
    """The image to test; Grafana's and Jaeger's only where they can be pulled."""
    if key not in images and key in OPTIONAL:
        pytest.skip(f"{OPTIONAL[key]} cannot be pulled here")
    return images[key].reference


@pytest.fixture
def volume():
    name = f"{session_name()}-{uuid.uuid4().hex[:8]}"
    assert docker("volume", "create", name).status == 0
    yield name
    assert docker("volume", "rm", "--force", name).status == 0


@pytest.fixture
def readable(tmp_path: Path):
    """Write a file that any user in a container may read."""

    def write(name: str, content: str) -> Path:
        path = tmp_path / name
        path.write_text(content, encoding="utf-8")
        path.chmod(0o644)
        return path

    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and str(folder).startswith("/tmp/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    return write


@pytest.fixture
def start():
    """Start containers in the background, and remove them after the test."""
    names: list[str] = []

    def run(*arguments: str) -> str:
        name = f"{session_name()}-{uuid.uuid4().hex[:8]}"
        names.append(name)
        answer = docker("run", "--detach", "--name", name, *RESTRICTIONS, *arguments)
        assert answer.status == 0, answer.output
        return name

    yield run
    for name in names:
        docker("rm", "--force", "--volumes", name)
