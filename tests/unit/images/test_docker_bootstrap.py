"""ops/bootstrap/docker.sh detects a missing part before it changes anything, and names it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "ops/bootstrap/docker.sh"
# Programs that the script needs besides docker itself; dockerd is not among them, so that no daemon is ever started.
PROGRAMS = ("bash", "sort", "head", "cat", "id", "uname")


@pytest.fixture
def shell(tmp_path):
    """Runs a line of bash with the script's functions, with a `docker` that is the given script."""
    for program in PROGRAMS:
        (tmp_path / program).symlink_to(shutil.which(program) or program)

    def run(line: str, docker: str | None, **environment: str) -> subprocess.CompletedProcess[str]:
        if docker is not None:
            (tmp_path / "docker").write_text(f"#!/bin/bash\n{docker}\n")
            (tmp_path / "docker").chmod(0o755)
        return subprocess.run(
            [str(tmp_path / "bash"), "-euo", "pipefail", "-c", f". {SCRIPT}; {line}"],
            env={"PATH": str(tmp_path), "HOME": os.environ["HOME"], **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.parametrize(
    ("docker", "problem"),
    [
        (None, "client"),
        ("echo 'server=20.10.24 buildx=v0.13.1 compose=2.26.1-4'", ""),
        ("echo 'server=28.0.1 buildx=v0.21.0 compose=v2.20.0'", ""),
        ("echo 'server=20.10.24'", "compose"),
        ("echo 'server=20.10.24 buildx=v0.13.1 compose=v2.19.9'", "compose"),
        ("echo 'server=20.10.24 compose=v2.100.0'", "buildx"),
        ("echo 'permission denied while trying to connect to the Docker daemon socket'; exit 1", "permission"),
        # A client alone, without an installed engine to start.
        ("echo 'Cannot connect to the Docker daemon'; exit 1", "client"),
    ],
)
def test_the_first_missing_part_is_named(shell, docker, problem):
    assert shell("docker_problem", docker).stdout.strip() == problem


def test_a_running_docker_is_left_unchanged(shell):
    answer = shell("ensure_docker; echo done", "echo 'server=28.0.1 buildx=v0.21.0 compose=v2.35.0'")
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "done\n", "")


def test_a_user_without_permission_gets_the_groups_command(shell):
    answer = shell("ensure_docker; echo never", "echo 'permission denied while trying to connect'; exit 1")
    assert answer.returncode == 1
    assert "usermod -aG docker" in answer.stderr
    assert "never" not in answer.stdout


def test_an_unreachable_remote_daemon_gets_no_local_one(shell):
    docker = "echo 'Cannot connect to the Docker daemon'; exit 1"
    answer = shell("ensure_docker; echo never", docker, DOCKER_HOST="tcp://daemon.test:2375")
    assert answer.returncode == 1
    assert "tcp://daemon.test:2375" in answer.stderr


def test_the_mirror_is_that_of_the_machines_release(shell, tmp_path):
    (tmp_path / "sed").symlink_to(shutil.which("sed") or "sed")
    listed = (
        "'http://mirror.test/vendor/dists/nodistro/InRelease' x 0",
        "'http://mirror.test/debian/dists/bookworm-updates/InRelease' x 0",
        "'http://mirror.test/debian/dists/bookworm/InRelease' x 0",
    )
    apt = f"apt-get() {{ printf '%s\\n' {' '.join(chr(34) + line + chr(34) for line in listed)}; }}"
    release = "os_release() { echo bookworm; }"
    answer = shell(f"{apt}; {release}; debian_mirror", None)
    assert answer.stdout == "http://mirror.test/debian/\n"
