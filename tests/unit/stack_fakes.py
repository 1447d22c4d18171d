"""Fake containers for the fake `docker` of tests/unit/ops/conftest.py, and `ops/stack` as a child process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ops.project import ROOT


def container(
    service: str,
    number: int,
    *,
    state: str = "running",
    health: str | None = None,
    code: int = 0,
    policy: str = "always",
) -> dict[str, Any]:
    """Return what `docker inspect` prints of a container.

    Args:
        service: Its compose service.
        number: Its number within the service; a later number is created later.
        state: Its state.
        health: The result of its health check; None without one.
        code: Its exit code.
        policy: Its restart policy.
    """
    details: dict[str, Any] = {
        "Id": f"{service}{number}".ljust(64, "0"),
        "Created": f"2026-01-01T00:00:0{number}.123456789Z",
        "State": {"Status": state, "ExitCode": code},
        "Config": {"Labels": {"com.docker.compose.service": service, "com.docker.compose.oneoff": "False"}},
        "HostConfig": {"RestartPolicy": {"Name": policy}},
    }
    if health:
        details["State"]["Health"] = {"Status": health}
    return details


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run `ops/stack …` without its bootstrap; PATH and STACK_STATE_DIR come from the fixtures."""
    return subprocess.run(
        [sys.executable, "-m", "ops", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
