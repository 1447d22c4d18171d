"""`docker compose`, called always the same way, and its answers as typed values."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from ops import compose_override, settings_file
from ops.child_process import ChildFailedError, run_with_progress
from ops.errors import FAILURE, StackError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ops.project import Project

PROGRESS = re.compile(
    r"\s*(?P<kind>Container|Volume|Network)\s+(?P<name>\S+)\s+(?P<state>Created|Started|Waiting|Healthy|Exited|Stopping|Removed)"
)

NAMELESS = re.compile(r"[0-9a-f]{64}")
"""What Docker calls a volume that has no name."""

SUSPENDED = re.compile(r"^suspended tasks: (\d+)$", re.MULTILINE)

ANSWER_SECONDS = 5.0
PAUSE_TRIES = 20


@dataclass(frozen=True)
class Instance:
    """One container of a service.

    Attributes:
        id: Docker's short id, which is the container's host name too.
        state: created, running, restarting, paused, exited or dead.
        health: starting, healthy, unhealthy; unwatched where an image has no shell to check with and the container
            runs; done for a one-shot that succeeded.
        created: When it was made, seconds since the epoch.
        ports: The ports of this machine that lead to it.
        suspended_tasks: How many of a worker's slots are taken by a stopped task, as its last health check saw it.
    """

    id: str
    state: str
    health: Literal["starting", "healthy", "unhealthy", "unwatched", "done"]
    created: float
    ports: frozenset[int] = frozenset()
    suspended_tasks: int = 0

    @property
    def ok(self) -> bool:
        """Whether it is as it should be."""
        return self.health in ("healthy", "unwatched", "done")


def command(project: Project, *arguments: str) -> list[str]:
    """The whole command line; by hand, in compose/, `docker compose …` does the same."""
    directory = project.compose_directory
    override = compose_override.path(project)
    return [
        "docker",
        "compose",
        f"--project-directory={directory}",
        f"--file={directory / 'compose.yaml'}",
        *([f"--file={override}"] if override else []),
        f"--env-file={project.env_file}",
        *arguments,
    ]


def environment(project: Project) -> dict[str, str]:
    """This process's environment, without the variables that would change what .env says."""
    settings = settings_file.parse(project.env_file, project.shown(project.env_file))
    return {key: value for key, value in os.environ.items() if not key.startswith("COMPOSE_") and key not in settings}


def output(project: Project, *arguments: str) -> str:
    """What a command prints.

    Raises:
        StackError: It failed; with what it said.
    """
    result = subprocess.run(
        command(project, *arguments), capture_output=True, text=True, check=False, env=environment(project)
    )
    if result.returncode != 0:
        raise failure(arguments, result.stderr.splitlines())
    return result.stdout


def failure(arguments: tuple[str, ...], said: list[str]) -> StackError:
    """The error for a command that failed, with the last that it said."""
    subcommand = next(argument for argument in arguments if not argument.startswith("-"))
    last = [line.strip() for line in said if line.strip()][-8:]
    return StackError(
        f"docker compose {subcommand} failed:\n" + "\n".join(last),
        hint="./ops/stack status shows the services, ./ops/stack logs SERVICE what one said",
        code=FAILURE,
    )


def run(project: Project, report: Callable[[str], None], *arguments: str) -> None:
    """Runs a command that takes a while, reporting what it does.

    Raises:
        StackError: It failed; with the last that it said.
    """

    def progress(line: str) -> str | None:
        found = PROGRESS.match(line)
        return f"{found['name']}: {found['state'].lower()}" if found else None

    try:
        run_with_progress(command(project, *arguments), progress, report, environment(project))
    except ChildFailedError as error:
        raise failure(arguments, error.tail) from error


@contextlib.contextmanager
def at_work(project: Project, *arguments: str) -> Iterator[Callable[[], bool]]:
    """A command that runs beside its caller, and is ended with the block.

    Yields:
        Tells whether the command has ended well; raises StackError when it has failed.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        # In a session of its own, so that it hears of Ctrl-C from here, and its plugin with it: the docker client
        # passes no signal on.
        child = subprocess.Popen(
            command(project, *arguments),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            env=environment(project),
            start_new_session=True,
        )

        def ended() -> bool:
            if child.poll() is None:
                return False
            if child.returncode != 0:
                said.seek(0)
                raise failure(arguments, said.read().splitlines())
            return True

        try:
            yield ended
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGTERM)
                child.wait()


def config(project: Project, *options: str) -> dict[str, Any]:
    """The whole model of the stack as compose sees it, with the profiles that are on."""
    answer: dict[str, Any] = json.loads(output(project, *options, "config", "--format", "json"))
    return answer


def expected_replicas(model: Mapping[str, Any]) -> dict[str, int]:
    """How many instances of each service there should be."""
    return {
        name: int(service.get("deploy", {}).get("replicas") or 1) for name, service in sorted(model["services"].items())
    }


def instances(name: str) -> dict[str, list[Instance]]:
    """The containers of a compose project by service, ended ones included.

    They are found by their label, so that this works without any file.

    Args:
        name: The compose project's name.
    """
    listed = docker("ps", "--all", "--quiet", "--no-trunc", f"--filter=label=com.docker.compose.project={name}").split()
    found: dict[str, list[Instance]] = {}
    for container in inspect(listed):
        labels = container["Config"]["Labels"]
        if labels.get("com.docker.compose.oneoff") == "True":
            continue
        state = container["State"]
        health = state.get("Health", {}).get("Status", "unwatched")
        one_shot = container["HostConfig"]["RestartPolicy"]["Name"] != "always"
        if state["Status"] == "exited" and state["ExitCode"] == 0 and one_shot:
            health = "done"
        elif state["Status"] != "running":
            health = "starting" if state["Status"] == "created" else "unhealthy"
        found.setdefault(labels["com.docker.compose.service"], []).append(
            Instance(
                id=container["Id"][:12],
                state=state["Status"],
                health=health,
                created=datetime.fromisoformat(container["Created"]).timestamp(),
                ports=frozenset(published(container)),
                suspended_tasks=suspended_tasks(state.get("Health", {}).get("Log") or []),
            )
        )
    return {service: sorted(of, key=lambda one: one.created) for service, of in sorted(found.items())}


def suspended_tasks(log: Sequence[Mapping[str, Any]]) -> int:
    """Return what a worker's last health check printed of its suspended tasks (airflow_ha.health).

    Args:
        log: Docker's record of the last checks, the newest at the end.
    """
    found = SUSPENDED.search(log[-1].get("Output", "")) if log else None
    return int(found[1]) if found else 0


@contextlib.contextmanager
def endings(name: str) -> Iterator[Callable[[], list[str]]]:
    """Watch the containers of a compose project for as long as the block lasts.

    Yields:
        Returns what ended since, or ran out of memory, each as `container: event`, in Docker's order.
    """
    watch = ["docker", "events", "--filter=type=container", f"--filter=label=com.docker.compose.project={name}"]
    kinds = ["--filter=event=die", "--filter=event=oom", "--format={{.Actor.Attributes.name}}: {{.Action}}"]
    with tempfile.TemporaryFile() as seen:
        child = subprocess.Popen([*watch, *kinds], stdin=subprocess.DEVNULL, stdout=seen)

        def endings_so_far() -> list[str]:
            # Without a seek: the child writes at the same position.
            return os.pread(seen.fileno(), os.fstat(seen.fileno()).st_size, 0).decode().splitlines()

        try:
            yield endings_so_far
        finally:
            child.terminate()
            child.wait()


def inspect(containers: list[str]) -> list[dict[str, Any]]:
    """What Docker says of containers, without those that went away meanwhile."""
    if not containers:
        return []
    result = subprocess.run(["docker", "inspect", *containers], capture_output=True, text=True, check=False)
    if result.returncode != 0 and "no such object" not in result.stderr.lower():
        raise docker_failure("inspect", result.stderr)
    found: list[dict[str, Any]] = json.loads(result.stdout or "[]")
    return found


def published(container: Mapping[str, Any]) -> Iterator[int]:
    """The ports of this machine that lead to a container."""
    for bindings in (container.get("NetworkSettings", {}).get("Ports") or {}).values():
        for binding in bindings or []:
            yield int(binding["HostPort"])


def docker(*arguments: str) -> str:
    """What a docker command prints.

    Raises:
        StackError: It failed.
    """
    result = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise docker_failure(arguments[0], result.stderr)
    return result.stdout


def pause(containers: Sequence[str]) -> None:
    """Stops every process of containers where it is.

    A health check under way can be in the way, twice. The kernel's first freezer (cgroup v1) can miss processes that
    are just being started; runc then gives up, and leaves it to its caller:
    https://github.com/opencontainers/runc/pull/2791. And now and then Docker has no more answer for a container that
    was frozen with its health check, until it is thawed (seen with Docker 20.10).

    Raises:
        StackError: Not all could be; those that were stay so.
    """
    left = list(containers)
    for more_tries in reversed(range(PAUSE_TRIES)):
        failure = StackError("docker inspect has no answer for a container that is paused", code=FAILURE)
        try:
            docker("pause", *left)
        except StackError as error:
            failure = error
        if silent := [one for one in left if not answers(one)]:
            docker("unpause", *silent)
        left = [found["Id"] for found in inspect(left) if not found["State"]["Paused"]]
        if not left:
            return
        if not more_tries:
            raise failure


def answers(container: str) -> bool:
    """Whether Docker says anything of a container."""
    asked = ["docker", "inspect", "--format={{.Id}}", container]
    try:
        subprocess.run(asked, capture_output=True, timeout=ANSWER_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return False
    return True


def docker_failure(subcommand: str, said: str) -> StackError:
    """The error for a docker command that failed."""
    return StackError(f"docker {subcommand} failed: {said.strip()}", hint="see what `docker info` says", code=FAILURE)


@contextlib.contextmanager
def without_leftover_volumes(name: str) -> Iterator[None]:
    """Remove the nameless volumes that containers of a project had before the block and no container has after it.

    A worker's /tmp is one. Compose removes them neither with a plain `down` nor when it scales down
    (https://docs.docker.com/reference/cli/docker/compose/down/), and with `down --volumes` not those that it has handed
    on to a recreated container.
    """
    listed = docker("ps", "--all", "--quiet", f"--filter=label=com.docker.compose.project={name}").split()
    mounts = [mount for container in inspect(listed) for mount in container.get("Mounts", [])]
    nameless = {mount["Name"] for mount in mounts if NAMELESS.fullmatch(mount.get("Name", ""))}
    yield
    if nameless:
        unused = docker("volume", "ls", "--quiet", "--filter=dangling=true").split()
        if leftover := sorted(nameless.intersection(unused)):
            docker("volume", "rm", *leftover)


def volumes(name: str) -> list[str]:
    """The volumes of a compose project."""
    return sorted(docker("volume", "ls", "--quiet", f"--filter=label=com.docker.compose.project={name}").splitlines())


def running_settings(project: Project, hint: str = "./ops/stack up starts it") -> dict[str, str]:
    """The settings of a stack that runs.

    Raises:
        StackError: It does not; with the hint.
    """
    settings = settings_file.read(project)
    found = instances(settings["COMPOSE_PROJECT_NAME"])
    if not any(instance.state == "running" for of in found.values() for instance in of):
        raise StackError("the stack does not run", hint=hint)
    return settings
