"""`docker compose`, called always the same way, and its answers as typed values."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ops.child_process import ChildFailedError, run_with_progress
from ops.errors import FAILURE, StackError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ops.project import Project

PROGRESS = re.compile(
    r"\s*(?P<kind>Container|Volume|Network)\s+(?P<name>\S+)\s+(?P<state>Created|Started|Waiting|Healthy|Exited|Stopping|Removed)"
)


@dataclass(frozen=True)
class Instance:
    """One container of a service.

    Attributes:
        id: Docker's short id, which is the container's host name too.
        state: created, running, restarting, paused, exited or dead.
        health: starting, healthy, unhealthy; none where the service has no health check; done for a one-shot that
            succeeded.
        created: When it was made, seconds since the epoch.
    """

    id: str
    state: str
    health: Literal["starting", "healthy", "unhealthy", "none", "done"]
    created: float

    @property
    def ok(self) -> bool:
        """Whether it is as it should be."""
        return self.health in ("healthy", "done")


def command(project: Project, *arguments: str) -> list[str]:
    """The whole command line; by hand, in compose/, `docker compose …` does the same."""
    directory = project.compose_directory
    return [
        "docker",
        "compose",
        f"--project-directory={directory}",
        f"--file={directory / 'compose.yaml'}",
        f"--env-file={project.env_file}",
        *arguments,
    ]


def environment() -> dict[str, str]:
    """This process's environment, without the variables that would change what .env says."""
    return {key: value for key, value in os.environ.items() if not key.startswith("COMPOSE_")}


def output(project: Project, *arguments: str) -> str:
    """What a command prints.

    Raises:
        StackError: It failed; with what it said.
    """
    result = subprocess.run(
        command(project, *arguments), capture_output=True, text=True, check=False, env=environment()
    )
    if result.returncode != 0:
        raise StackError(
            f"docker compose {arguments[0]} failed: {result.stderr.strip()[-2000:]}",
            cure="see the message above",
            code=FAILURE,
        )
    return result.stdout


def run(project: Project, report: Callable[[str], None], *arguments: str) -> None:
    """Runs a command that takes a while, reporting what it does.

    Raises:
        StackError: It failed; with the last that it said.
    """

    def progress(line: str) -> str | None:
        found = PROGRESS.match(line)
        return f"{found['name']}: {found['state'].lower()}" if found else None

    try:
        run_with_progress(command(project, *arguments), progress, report, environment())
    except ChildFailedError as error:
        raise StackError(
            f"docker compose {arguments[0]} failed:\n" + "\n".join(error.tail[-8:]),
            cure="./ops/stack status shows the services, ./ops/stack logs SERVICE what one said",
            code=FAILURE,
        ) from error


def config(project: Project) -> dict[str, Any]:
    """The whole model of the stack as compose sees it, with the profiles that are on."""
    answer: dict[str, Any] = json.loads(output(project, "config", "--format", "json"))
    return answer


def wanted(model: Mapping[str, Any]) -> dict[str, int]:
    """How many instances of each service there should be."""
    return {
        name: int(service.get("deploy", {}).get("replicas") or 1) for name, service in sorted(model["services"].items())
    }


def is_one_shot(model: Mapping[str, Any], service: str) -> bool:
    """Whether a service ends by itself: it restarts on failure only."""
    return str(model["services"][service].get("restart", "")).startswith(("on-failure", "no"))


def instances(project: Project, name: str) -> dict[str, list[Instance]]:
    """The containers of a compose project by service, ended ones included.

    Args:
        project: For its errors only: containers are found by their label, so that this works without any file.
        name: The compose project's name.
    """
    listed = docker("ps", "--all", "--quiet", "--no-trunc", f"--filter=label=com.docker.compose.project={name}").split()
    if not listed:
        return {}
    found: dict[str, list[Instance]] = {}
    for container in json.loads(docker("inspect", *listed)):
        labels = container["Config"]["Labels"]
        if labels.get("com.docker.compose.oneoff") == "True":
            continue
        state = container["State"]
        health = state.get("Health", {}).get("Status", "none")
        one_shot = container["HostConfig"]["RestartPolicy"]["Name"] != "always"
        if state["Status"] == "exited" and state["ExitCode"] == 0 and one_shot:
            health = "done"
        elif state["Status"] != "running":
            health = "starting" if state["Status"] == "created" else "unhealthy"
        found.setdefault(labels["com.docker.compose.service"], []).append(
            Instance(container["Id"][:12], state["Status"], health, timestamp(container["Created"]))
        )
    return {service: sorted(of, key=lambda one: one.created) for service, of in sorted(found.items())}


def timestamp(moment: str) -> float:
    """Seconds since the epoch of Docker's RFC 3339 times, which have nanoseconds."""
    from datetime import datetime

    return datetime.fromisoformat(re.sub(r"\.(\d{6})\d*Z$", r".\1+00:00", moment)).timestamp()


def docker(*arguments: str) -> str:
    """What a docker command prints.

    Raises:
        StackError: It failed.
    """
    result = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise StackError(f"docker {arguments[0]} failed: {result.stderr.strip()}", code=FAILURE)
    return result.stdout


def volumes(name: str) -> list[str]:
    """The volumes of a compose project."""
    return sorted(docker("volume", "ls", "--quiet", f"--filter=label=com.docker.compose.project={name}").splitlines())
