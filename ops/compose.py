"""`docker compose` and `docker` commands of one stack, with their output as typed values."""

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

from ops import compose_override, lock, settings_file, time_limits
from ops.child_process import ChildFailedError, run_limited, run_with_progress
from ops.errors import FAILURE, StackError
from ops.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from ops.project import Project

PROGRESS = re.compile(
    r"\s*(?P<kind>Container|Volume|Network)\s+(?P<name>\S+)\s+(?P<state>Created|Started|Waiting|Healthy|Exited|Stopping|Removed)"
)

RECREATED = re.compile(r"Container (\S+)\s+Recreate\b")
"""The line of `up` about a container that differs from its service."""

ANONYMOUS = re.compile(r"[0-9a-f]{64}")
"""The name that Docker gives to an anonymous volume."""

SUSPENDED = re.compile(r"^suspended tasks: (\d+)$", re.MULTILINE)
MAINTENANCE = re.compile(r"^maintenance: (.+)$", re.MULTILINE)
REFUSED = re.compile(r"^refused log-ins: (\d+) addresses, (\d+) users$", re.MULTILINE)

NEVER = "0001-01-01T00:00:00Z"
"""Docker's time of the start of a container that has not started."""

ANSWER_SECONDS = 5.0
"""Timeout of `docker inspect` for one container."""
PAUSE_TRIES = 20
ERROR_LINES = 8
"""Output lines of a failed command that its error quotes."""
GUARD = "/usr/local/bin/restart-when-unhealthy.sh"
"""The script that health checks run; its arguments are a limit and the probe."""
PROBE_SECONDS = "8"
STOP_SECONDS = 60
"""Time to stop for a service without tasks: Postgres writes a checkpoint."""
KILL_SECONDS = 30.0
"""Longest time that Docker takes to kill a container that has not stopped in time."""


@dataclass(frozen=True)
class Instance:
    """One container of a service.

    Attributes:
        id: Docker's short id, which is also the container's host name.
        state: created, running, restarting, paused, exited or dead.
        health: starting, healthy or unhealthy; unwatched for a running container without a health check (its image has
            no shell); done for a one-shot container that exited with 0, and starting until then.
        created: Creation time, seconds since the epoch.
        ports: Ports of the host that are published for the container.
        suspended_tasks: Worker slots that a suspended task occupies, from the last health check.
        refused_addresses: Addresses whose log-ins the gateway or the pages' door refuses, from the last health check.
        refused_users: Users whose log-ins it refuses from new addresses.
        started: Time of the last start, seconds since the epoch; 0 if it never started.
        restarts: Restarts by Docker since the creation.
        was_out_of_memory: Whether it last ended at its memory limit.
        waits_for: What maintenance waits for, from the last health check.
        number: Its number within the service. Compose removes the highest ones first.
    """

    id: str
    state: str
    health: Literal["starting", "healthy", "unhealthy", "unwatched", "done"]
    created: float
    ports: frozenset[int] = frozenset()
    suspended_tasks: int = 0
    refused_addresses: int = 0
    refused_users: int = 0
    started: float = 0.0
    restarts: int = 0
    was_out_of_memory: bool = False
    waits_for: str = ""
    number: int = 0

    @property
    def is_healthy(self) -> bool:
        """Whether the container is healthy, runs without a health check, or is a one-shot that succeeded."""
        return self.health in ("healthy", "unwatched", "done")


def run_module(
    project: Project, service: str, module: str, *arguments: str, what: str, options: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a Python module in a new container of a service, for time_limits.AIRFLOW seconds at most.

    Args:
        project: The stack.
        service: Its image, secrets and networks are used; its dependencies are not started.
        module: The module in the image.
        arguments: Of the module.
        what: The action, for the error.
        options: More options of `docker compose run`.

    Returns:
        The ended process; its code is time_limits.EXCEEDED if the module was stopped at the limit.
    """
    # The limit is inside, since a client that is killed leaves its container running.
    limited = ("--kill-after=5", f"{time_limits.AIRFLOW:.0f}", "python", "-m", module, *arguments)
    return run_limited(
        command(project, "run", "--rm", "--no-deps", "--no-TTY", "--entrypoint=timeout", *options, service, *limited),
        time_limits.AIRFLOW + time_limits.ENDING,
        what,
        environment=environment(project),
    )


def command(project: Project, *arguments: str) -> list[str]:
    """Return the whole command line; `docker compose …` in compose/ is equivalent."""
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
    """Return this process's environment without the variables that would override .env."""
    settings = settings_file.parse(project.env_file, project.shown(project.env_file))
    return {key: value for key, value in os.environ.items() if not key.startswith("COMPOSE_") and key not in settings}


def output(project: Project, *arguments: str) -> str:
    """Return the standard output of a compose command.

    Raises:
        StackError: The command failed; the error quotes its last lines.
    """
    result = subprocess.run(
        command(project, *arguments), capture_output=True, text=True, check=False, env=environment(project)
    )
    if result.returncode != 0:
        raise failure(arguments, result.stderr.splitlines())
    return result.stdout


def failure(arguments: tuple[str, ...], lines: list[str]) -> StackError:
    """Return the error of a failed compose command, with the last lines of its output."""
    subcommand = next(argument for argument in arguments if not argument.startswith("-"))
    last = [line.strip() for line in lines if line.strip()][-ERROR_LINES:]
    services_hint = "run ./ops/stack status, then ./ops/stack logs SERVICE for a service that is not healthy"
    return StackError(
        f"cannot run docker compose {subcommand}:\n" + "\n".join(last),
        hint="fix the setting in .env or compose.override.yaml" if subcommand == "config" else services_hint,
        code=FAILURE,
    )


def run(project: Project, report: Callable[[str], None], *arguments: str) -> None:
    """Run a long compose command and report its progress.

    Raises:
        StackError: The command failed; the error quotes its last lines.
    """

    def progress(line: str) -> str | None:
        match = PROGRESS.match(line)
        return f"{match['name']}: {match['state'].lower()}" if match else None

    try:
        run_with_progress(command(project, *arguments), progress, report, environment(project), tuple(lock.held))
    except ChildFailedError as error:
        raise failure(arguments, error.tail) from error


@contextlib.contextmanager
def run_in_background(project: Project, *arguments: str) -> Iterator[Callable[[], bool]]:
    """Run a compose command beside the block, and terminate it when the block ends.

    Yields:
        A function that returns whether the command has succeeded; it raises StackError once the command has failed.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output_file:
        # A session of its own: the docker client does not forward signals to its compose plugin, so both get SIGTERM
        # from here.
        child = subprocess.Popen(
            command(project, *arguments),
            stdin=subprocess.DEVNULL,
            stdout=output_file,
            stderr=subprocess.STDOUT,
            env=environment(project),
            start_new_session=True,
            pass_fds=tuple(lock.held),
        )

        def has_succeeded() -> bool:
            if child.poll() is None:
                return False
            if child.returncode != 0:
                output_file.seek(0)
                raise failure(arguments, output_file.read().splitlines())
            return True

        try:
            yield has_succeeded
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGTERM)
                child.wait()


def config(project: Project, *options: str) -> dict[str, Any]:
    """Return the compose model with the active profiles, all variables resolved."""
    model: dict[str, Any] = json.loads(output(project, *options, "config", "--format", "json"))
    return model


def expected_replicas(model: Mapping[str, Any]) -> dict[str, int]:
    """Return the configured number of instances of each service."""
    return {
        name: int(service.get("deploy", {}).get("replicas") or 1) for name, service in sorted(model["services"].items())
    }


def instances(name: str) -> dict[str, list[Instance]]:
    """Return the containers of a compose project by service, the oldest first, exited ones included.

    Containers are selected by label, so this needs neither the compose files nor .env.

    Args:
        name: The compose project's name.
    """
    ids = docker("ps", "--all", "--quiet", "--no-trunc", f"--filter=label=com.docker.compose.project={name}").split()
    by_service: dict[str, list[Instance]] = {}
    for container in inspect(ids):
        labels = container["Config"]["Labels"]
        if labels.get("com.docker.compose.oneoff") != "True":
            by_service.setdefault(labels["com.docker.compose.service"], []).append(parse_instance(container))
    return {
        service: sorted(containers, key=lambda instance: instance.created)
        for service, containers in sorted(by_service.items())
    }


def parse_instance(container: Mapping[str, Any]) -> Instance:
    """Return the instance that `docker inspect` describes."""
    state = container["State"]
    health = state.get("Health", {}).get("Status", "unwatched")
    log = state.get("Health", {}).get("Log") or []
    refused_addresses, refused_users = refused_log_ins(log)
    is_one_shot = container["HostConfig"]["RestartPolicy"]["Name"] != "always"
    if state["Status"] == "exited" and state["ExitCode"] == 0 and is_one_shot:
        health = "done"
    elif state["Status"] == "running" and is_one_shot:
        health = "starting"
    elif state["Status"] != "running":
        health = "starting" if state["Status"] == "created" else "unhealthy"
    return Instance(
        id=container["Id"][:12],
        state=state["Status"],
        health=health,
        created=datetime.fromisoformat(container["Created"]).timestamp(),
        ports=frozenset(published(container)),
        suspended_tasks=suspended_tasks(log),
        refused_addresses=refused_addresses,
        refused_users=refused_users,
        started=max(0.0, datetime.fromisoformat(state.get("StartedAt", NEVER)).timestamp()),
        restarts=container.get("RestartCount", 0),
        was_out_of_memory=state.get("OOMKilled", False),
        waits_for=waits_for(log),
        number=int(container["Config"]["Labels"].get("com.docker.compose.container-number", 0)),
    )


def in_state(
    by_service: Mapping[str, Iterable[Instance]], state: str, services: Iterable[str] | None = None
) -> list[Instance]:
    """Return the instances in a state, of the services given or of all, in the order of the services."""
    names = by_service.keys() if services is None else services
    return [instance for name in names for instance in by_service.get(name, ()) if instance.state == state]


def suspended_tasks(log: Sequence[Mapping[str, Any]]) -> int:
    """Return the number of suspended tasks that a worker's last health check printed (airflow_ha.health).

    Args:
        log: Docker's record of the last checks, the newest at the end.
    """
    match = SUSPENDED.search(log[-1].get("Output", "")) if log else None
    return int(match[1]) if match else 0


def waits_for(log: Sequence[Mapping[str, Any]]) -> str:
    """Return what maintenance waits for, which its last health check printed; empty for nothing.

    Args:
        log: Docker's record of the last checks, the newest at the end.
    """
    match = MAINTENANCE.search(log[-1].get("Output", "")) if log else None
    return match[1] if match else ""


def refused_log_ins(log: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Return the numbers of refused addresses and users that the gateway's last health check printed.

    Args:
        log: Docker's record of the last checks, the newest at the end.
    """
    match = REFUSED.search(log[-1].get("Output", "")) if log else None
    return (int(match[1]), int(match[2])) if match else (0, 0)


@contextlib.contextmanager
def endings(name: str) -> Iterator[Callable[[], list[str]]]:
    """Record the containers of a compose project that exit or run out of memory during the block.

    Yields:
        A function that returns the events so far, each as `container: event`, in Docker's order.
    """
    watch = ["docker", "events", "--filter=type=container", f"--filter=label=com.docker.compose.project={name}"]
    kinds = ["--filter=event=die", "--filter=event=oom", "--format={{.Actor.Attributes.name}}: {{.Action}}"]
    with tempfile.TemporaryFile() as events:
        child = subprocess.Popen([*watch, *kinds], stdin=subprocess.DEVNULL, stdout=events)

        def events_so_far() -> list[str]:
            # pread instead of seek: the child writes at the shared file position.
            return os.pread(events.fileno(), os.fstat(events.fileno()).st_size, 0).decode().splitlines()

        try:
            yield events_so_far
        finally:
            child.terminate()
            child.wait()


def inspect(containers: list[str]) -> list[dict[str, Any]]:
    """Return what `docker inspect` reports of containers, without those removed in the meantime."""
    if not containers:
        return []
    result = subprocess.run(["docker", "inspect", *containers], capture_output=True, text=True, check=False)
    if result.returncode != 0 and "no such object" not in result.stderr.lower():
        raise docker_failure("inspect", result.stderr)
    details: list[dict[str, Any]] = json.loads(result.stdout or "[]")
    return details


def published(container: Mapping[str, Any]) -> Iterator[int]:
    """Yield the ports of the host that are published for a container."""
    for bindings in (container.get("NetworkSettings", {}).get("Ports") or {}).values():
        for binding in bindings or []:
            yield int(binding["HostPort"])


def probe_succeeds(container: str) -> bool:
    """Run the probe of a container's health check now, without the script that restarts after several failures.

    Docker runs the first one 5 to 20 s after the start, and the next one as much later. A container whose check is not
    the guard's counts as not healthy.
    """
    for details in inspect([container]):
        test = details["Config"].get("Healthcheck", {}).get("Test", [])
        if GUARD in test:
            probe = test[test.index(GUARD) + 2 :]
            run_probe = ["docker", "exec", container, "timeout", PROBE_SECONDS, *probe]
            return subprocess.run(run_probe, capture_output=True, check=False).returncode == 0
    return False


def outdated(project: Project) -> set[str]:
    """Return the ids of the containers that `docker compose up` would recreate because of their settings or image.

    Its dry run also lists the containers that depend on these; they need no new container.

    Raises:
        StackError: The command failed.
    """
    arguments = ("--dry-run", "up", "--no-start")
    result = subprocess.run(
        command(project, *arguments), capture_output=True, text=True, check=False, env=environment(project)
    )
    if result.returncode != 0:
        raise failure(arguments, result.stderr.splitlines())
    listed = inspect(sorted(set(RECREATED.findall(result.stdout + result.stderr))))
    hashes = service_hashes(project) if listed else {}
    return {details["Id"][:12] for details in listed if not is_up_to_date(details, hashes)}


def service_hashes(project: Project) -> dict[str, str]:
    """Return the hash of each service's settings, as `up` writes it to a label.

    `config --hash` counts optional dependencies whose profile is off too, and `up` leaves them out: its model is given
    without them.

    Raises:
        StackError: The command failed.
    """
    model = config(project)
    services = model["services"]
    for service in services.values():
        if dependencies := service.get("depends_on"):
            service["depends_on"] = {name: each for name, each in dependencies.items() if name in services}
    arguments = ("--profile=*", "config", "--hash", "*")
    read_model = ["docker", "compose", f"--project-directory={project.compose_directory}", "--file=-", *arguments]
    what = "compute the hashes of the services"
    result = run_limited(
        read_model, time_limits.COMMAND, what, stdin=json.dumps(model), environment=environment(project)
    )
    if result.returncode != 0:
        raise failure(arguments, result.stderr.splitlines())
    return dict(line.split() for line in result.stdout.splitlines())


def is_up_to_date(details: Mapping[str, Any], hashes: Mapping[str, str]) -> bool:
    """Return whether a container has the settings of its service, and the image that has its image's name now.

    Args:
        details: Output of `docker inspect`.
        hashes: The hash of each service's settings.
    """
    labels = details["Config"]["Labels"]
    if labels.get("com.docker.compose.config-hash") != hashes.get(labels["com.docker.compose.service"], ""):
        return False
    try:
        image = docker("image", "inspect", "--format={{.Id}}", details["Config"]["Image"])
    except StackError:  # no image has the name any more
        return False
    return image.strip() == str(details["Image"])


def stop(containers: Sequence[str], seconds: int, what: str, report: Callable[[str], None]) -> None:
    """Stop containers side by side, and report while they finish their work.

    Args:
        containers: Docker's ids.
        seconds: Time after which Docker kills those that still run.
        what: Their name in the progress.
        report: Prints a line of progress.

    Raises:
        StackError: The command failed.
    """
    if not containers:
        return
    with subprocess.Popen(
        ["docker", "stop", f"--time={seconds}", *containers],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        has_ended = f"{what} has finished its work"
        wait(lambda: child.poll() is not None, seconds + KILL_SECONDS, has_ended, report, poll_seconds=0.2)
        if child.returncode != 0:
            raise docker_failure("stop", child.stderr.read() if child.stderr else "")


def docker(*arguments: str) -> str:
    """Return the standard output of a docker command.

    Raises:
        StackError: The command failed, or has not ended in time.
    """
    result = run_limited(["docker", *arguments], time_limits.COMMAND, f"run docker {arguments[0]}")
    if result.returncode != 0:
        raise docker_failure(arguments[0], result.stderr)
    return result.stdout


def pause(containers: Sequence[str]) -> None:
    """Freeze every process of the containers, with up to PAUSE_TRIES tries.

    runc gives up while processes are being started, because the freezer of cgroup v1 can miss them; the caller must
    try again: https://github.com/opencontainers/runc/pull/2791. Docker 20.10 sometimes stops answering for a container
    that was frozen during its health check, until it is unpaused.

    Raises:
        StackError: A container could not be paused; the others stay paused.
    """
    remaining = list(containers)
    for more_tries in reversed(range(PAUSE_TRIES)):
        last_error = StackError(
            "cannot pause a container: docker inspect does not answer for it",
            hint="restart the Docker daemon",
            code=FAILURE,
        )
        try:
            docker("pause", *remaining)
        except StackError as error:
            last_error = error
        if silent := [container for container in remaining if not answers(container)]:
            docker("unpause", *silent)
        remaining = [details["Id"] for details in inspect(remaining) if not details["State"]["Paused"]]
        if not remaining:
            return
        if not more_tries:
            raise last_error


def answers(container: str) -> bool:
    """Return whether `docker inspect` of a container ends within ANSWER_SECONDS."""
    inspect_command = ["docker", "inspect", "--format={{.Id}}", container]
    try:
        subprocess.run(inspect_command, capture_output=True, timeout=ANSWER_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return False
    return True


def docker_failure(subcommand: str, stderr: str) -> StackError:
    """Return the error of a failed docker command."""
    return StackError(
        f"cannot run docker {subcommand}: {stderr.strip()}", hint="check the daemon with docker info", code=FAILURE
    )


@contextlib.contextmanager
def without_leftover_volumes(name: str) -> Iterator[None]:
    """Remove the anonymous volumes that a project's containers used before the block and no container uses after it.

    A worker's /tmp is such a volume. Compose keeps them after a plain `down` and after scaling down
    (https://docs.docker.com/reference/cli/docker/compose/down/). `down --volumes` keeps those of recreated containers.
    """
    ids = docker("ps", "--all", "--quiet", f"--filter=label=com.docker.compose.project={name}").split()
    mounts = [mount for container in inspect(ids) for mount in container.get("Mounts", [])]
    anonymous = {mount["Name"] for mount in mounts if ANONYMOUS.fullmatch(mount.get("Name", ""))}
    yield
    if anonymous:
        unused = docker("volume", "ls", "--quiet", "--filter=dangling=true").split()
        if leftover := sorted(anonymous.intersection(unused)):
            docker("volume", "rm", *leftover)


def volumes(name: str) -> list[str]:
    """Return the named volumes of a compose project."""
    return sorted(docker("volume", "ls", "--quiet", f"--filter=label=com.docker.compose.project={name}").splitlines())


def remove_volumes(names: Sequence[str]) -> None:
    """Remove volumes, and with one command before every container that mounts one of them."""
    if not names:
        return
    if users := docker("ps", "--all", "--quiet", *(f"--filter=volume={volume}" for volume in names)).split():
        docker("rm", "--force", "--volumes", *users)
    docker("volume", "rm", *names)


def create_volume(name: str, volume: str) -> str:
    """Create a volume of a compose project as compose does, unless it exists, and return its whole name."""
    labels = (f"--label=com.docker.compose.project={name}", f"--label=com.docker.compose.volume={volume}")
    docker("volume", "create", *labels, f"{name}_{volume}")
    return f"{name}_{volume}"


def running_settings(project: Project, hint: str = "run ./ops/stack up") -> dict[str, str]:
    """Return the settings of a running stack.

    Args:
        project: The stack.
        hint: The hint of the error.

    Raises:
        StackError: No container of the stack runs.
    """
    settings = settings_file.read(project)
    if not in_state(instances(settings["COMPOSE_PROJECT_NAME"]), "running"):
        raise StackError("cannot continue: the stack does not run", hint=hint)
    return settings
