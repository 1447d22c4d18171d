"""Fake containers for the fake `docker` of tests/unit/ops/conftest.py, and `ops/stack` in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from ops.__main__ import main
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


def run(*arguments: str, cwd: Path = ROOT, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run `ops/stack …` without its bootstrap; PATH and STACK_STATE_DIR come from the fixtures.

    In a fork of this process: to start Python and import the commands takes ten times as long as most commands.
    """
    with TemporaryFile("w+") as stdin, TemporaryFile("w+") as stdout, TemporaryFile("w+") as stderr:
        stdin.write(given)
        stdin.seek(0)
        process = os.fork()
        if not process:
            os._exit(run_here(arguments, cwd, (stdin.fileno(), stdout.fileno(), stderr.fileno())))
        _, status = os.waitpid(process, 0)
        stdout.seek(0)
        stderr.seek(0)
        return subprocess.CompletedProcess(arguments, os.waitstatus_to_exitcode(status), stdout.read(), stderr.read())


def run_here(arguments: Sequence[str], cwd: Path, streams: Sequence[int]) -> int:
    """Run a command in this process with these standard streams, and return its exit code."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    sys.argv = ["ops", *arguments]
    os.chdir(cwd)
    code: str | int | None = 0
    try:
        main()
    except SystemExit as request:
        code = request.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return int(code or 0)
