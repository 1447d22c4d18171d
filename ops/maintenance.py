"""The service `maintenance` of a running stack, and commands in its container."""

from __future__ import annotations

import subprocess
from typing import Final

from ops import compose
from ops.errors import FAILURE, StackError

SERVICE: Final = "maintenance"


def running_container(project: str) -> compose.Instance:
    """Return the service's container.

    Raises:
        StackError: It does not run.
    """
    running = compose.in_state(compose.instances(project), "running", [SERVICE])
    if not running:
        raise StackError(f"cannot reach the service {SERVICE}: it does not run", hint="run ./ops/stack up")
    return running[0]


def command(container: str, name: str) -> list[str]:
    """Return the command line of a command of maintenance; see airflow_ha.maintenance."""
    return ["docker", "exec", container, "python", "-m", "airflow_ha.maintenance", name]


def run(container: str, name: str) -> None:
    """Run a command of maintenance; its output goes to the screen.

    Raises:
        StackError: The command failed; it printed the reason.
    """
    check(subprocess.run(command(container, name), check=False).returncode)


def check(code: int) -> None:
    """Check the exit code of a command of maintenance.

    Raises:
        StackError: It failed.
    """
    if code:
        raise StackError(
            "cannot complete maintenance: see the lines above",
            hint="correct the cause, then run ./ops/stack maintenance again",
            code=FAILURE,
        )
