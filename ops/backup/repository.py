"""The repository, read by short-lived containers: it needs neither the stack nor its services.

The passphrase goes to an engine by standard input, so it is on no command line and in no file of the host.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ops import backup_config, compose, secrets_store, time_limits
from ops.backup import sets
from ops.child_process import no_answer
from ops.errors import FAILURE, StackError
from ops.services import BACKUP_VOLUME

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ops.backup.sets import Contents
    from ops.project import Project

DATABASE_USER: Final = "999:999"
FILES_USER: Final = "50000:0"
"""The users of the containers, as in compose/backup.yaml."""
RESTRICTIONS: Final = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--init")
CONFIGURATION: Final = "/tmp/engine.conf"  # noqa: S108 (a tmpfs of the container)
TAKE_CONFIGURATION: Final = f'umask 077; cat >{CONFIGURATION}; exec "$@"'
ENGINE: Final = "airflow-ha-engine-"
"""The beginning of the containers' names."""
REPORT_SECONDS: Final = 10.0
SHOWN_LINES: Final = 6
RESTIC: Final = ("restic", "--no-cache", "--no-lock")


@dataclass(frozen=True)
class Repository:
    """A repository, and how a container reads it.

    Attributes:
        source: The volume, or the folder of the host.
        image: An image with both engines.
        configuration: pgBackRest's configuration.
        passphrase: The passphrase.
    """

    source: str
    image: str
    configuration: str
    passphrase: str


def of_stack(project: Project, settings: Mapping[str, str], image: str) -> Repository:
    """Return the repository of a stack.

    Args:
        project: The stack.
        settings: Of .env.
        image: An image with both engines.

    Raises:
        StackError: The passphrase or the repository is missing.
    """
    secrets_store.check_file(project, project.secrets / backup_config.PASSPHRASE)
    passphrase = secrets_store.read(project, backup_config.PASSPHRASE)
    if folder := settings.get("BACKUP_FOLDER"):
        source = str((project.compose_directory / folder).resolve())
        exists = (project.compose_directory / folder).is_dir()
    else:
        source = f"{settings['COMPOSE_PROJECT_NAME']}_{BACKUP_VOLUME}"
        exists = source in compose.docker("volume", "ls", "--quiet").split()
    if not exists:
        raise StackError(
            "cannot find the backups: their volume or folder does not exist",
            where=source,
            hint="set BACKUP_FOLDER in .env to the folder that has them, or run ./ops/stack up --profile backup, with "
            "your other profiles, to make some",
        )
    return Repository(source, image, backup_config.pgbackrest(settings, passphrase), passphrase)


def command_line(repository: Repository, user: str, command: Sequence[str], options: Sequence[str] = ()) -> list[str]:
    """Return the command line of an engine beside the repository, which it cannot change.

    Args:
        repository: The repository.
        user: The engine's user, who owns its part of the repository.
        command: The engine and its arguments.
        options: Further options of `docker run`.
    """
    if user == DATABASE_USER:
        environment = {"PGBACKREST_CONFIG": CONFIGURATION, "PGBACKREST_STANZA": backup_config.STANZA}
    else:
        environment = {"RESTIC_PASSWORD_FILE": CONFIGURATION, "RESTIC_REPOSITORY": f"{backup_config.FOLDER}/restic"}
    placed = ["docker", "run", "--rm", "--interactive", *RESTRICTIONS, f"--user={user}", "--tmpfs=/tmp:size=64m"]
    placed += ["--network=none", f"--volume={repository.source}:{backup_config.FOLDER}:ro"]
    placed += [f"--env={name}={value}" for name, value in environment.items()]
    return [*placed, *options, "--entrypoint=sh", repository.image, "-c", TAKE_CONFIGURATION, "sh", *command]


def run(
    repository: Repository,
    user: str,
    *command: str,
    options: Sequence[str] = (),
    report: Callable[[float], None] = lambda _: None,
    seconds: float = time_limits.ENGINE,
) -> subprocess.CompletedProcess[bytes]:
    """Run an engine and return its result.

    Args:
        repository: The repository.
        user: The engine's user.
        *command: The engine and its arguments.
        options: Further options of `docker run`.
        report: Called every REPORT_SECONDS with the seconds so far.
        seconds: The timeout.

    Raises:
        StackError: The engine has not ended in time, and was killed.
    """
    name = f"{ENGINE}{uuid.uuid4().hex[:8]}"
    arguments = command_line(repository, user, command, [f"--name={name}", *options])
    text: bytes | None = (repository.configuration if user == DATABASE_USER else repository.passphrase).encode()
    started = time.monotonic()
    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, stdin=pipe, stdout=pipe, stderr=pipe) as child:
        while True:
            try:
                output, error = child.communicate(text, timeout=REPORT_SECONDS)
                return subprocess.CompletedProcess(arguments, child.returncode, output, error)
            except subprocess.TimeoutExpired:
                text = None  # the first call keeps sending it
                report(time.monotonic() - started)
            except KeyboardInterrupt:
                kill(name)
                raise
            if time.monotonic() - started > seconds:
                kill(name)
                child.kill()
                raise no_answer(f"run {command[0]} beside the backups", seconds)


def kill(container: str) -> None:
    """Kill the container of an engine: its shell would continue after the engine, which gets no signal."""
    with contextlib.suppress(StackError):
        compose.docker("kill", container)


def remove_engines(volume: str) -> None:
    """Remove the engines of killed commands that still write to a volume."""
    if left := compose.docker("ps", "--quiet", f"--filter=name={ENGINE}", f"--filter=volume={volume}").split():
        compose.docker("rm", "--force", *left)


def contents(repository: Repository) -> Contents:
    """Return the sets of the repository.

    Raises:
        StackError: It cannot be read, or has no backup.
    """
    limit = time_limits.COMMAND
    information = run(repository, DATABASE_USER, "pgbackrest", "info", "--output=json", seconds=limit)
    if information.returncode != 0:
        raise sets.unreadable(text_of(information)[-1])
    snapshots = run(repository, FILES_USER, *RESTIC, "snapshots", "--json", seconds=limit)
    listed = snapshots.stdout.decode() if snapshots.returncode == 0 else ""
    return sets.parse(information.stdout.decode(errors="replace"), listed)


def text_of(result: subprocess.CompletedProcess[bytes]) -> list[str]:
    """Return the lines that a failed engine wrote."""
    lines = (result.stdout + result.stderr).decode(errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip()] or ["no output"]


def failure(what: str, result: subprocess.CompletedProcess[bytes], hint: str) -> StackError:
    """Return the error of a failed engine, with its last lines."""
    return StackError(f"{what}:\n" + "\n".join(text_of(result)[-SHOWN_LINES:]), hint=hint, code=FAILURE)
