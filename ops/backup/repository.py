"""The repositories of all storages, read by short-lived containers: they need neither the stack nor its services.

The passphrase and the log-in to S3 go to an engine by standard input, so they are on no command line.
"""

from __future__ import annotations

import contextlib
import io
import shlex
import subprocess
import tarfile
import time
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from ops import backup_config, backup_storage, compose, secrets_store, time_limits
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
PLACE: Final = "/tmp/engine"  # noqa: S108 (a tmpfs of the container)
TAKE_FILES: Final = (
    f'umask 077; mkdir {PLACE}; tar --extract --no-same-owner --directory={PLACE}; . {PLACE}/environment; exec "$@"'
)
ENGINE: Final = "airflow-ha-engine-"
"""The beginning of the containers' names."""
REPORT_SECONDS: Final = 10.0
SHOWN_LINES: Final = 6
INFORMATION: Final = ("pgbackrest", "info", "--io-timeout=3", "--output=json")
"""pgBackRest reports a server that does not answer, or whose certificate is wrong, after 9 times `io-timeout`."""
S3_SECONDS: Final = 40
"""How long an answer of the S3 server may take."""
RESTIC: Final = ("restic", "--cache-dir=/tmp/cache", "--no-lock")
"""Without a cache restic asks S3 once for each folder: 2,099 logs were restored in 235 s, with it in 1.3 s."""
CACHE: Final = "1g"
"""Size of the file system in memory that has the cache. The folders of 2,100 logs take under 3 MiB of it; what has no
place there is asked for again."""


@dataclass(frozen=True)
class Repository:
    """The repositories of the storages, and how a container reads them.

    Attributes:
        source: The volume or the folder of the host that is the local storage; empty without one.
        image: An image with both engines.
        configuration: pgBackRest's configuration, of all storages.
        environments: restic's environment for each storage.
        authority: The certificate of the S3 server's authority; empty for a public one.
    """

    source: str
    image: str
    configuration: str
    environments: Mapping[str, Mapping[str, str]]
    authority: str = ""

    @property
    def storages(self) -> tuple[str, ...]:
        """The storages."""
        return tuple(self.environments)

    def only(self, storage: str) -> Repository:
        """Return one of the storages."""
        return replace(
            self,
            configuration=backup_storage.only(self.configuration, storage),
            environments={storage: self.environments[storage]},
        )


def of_stack(project: Project, settings: Mapping[str, str], image: str) -> Repository:
    """Return the repositories of a stack. A local storage that does not exist is left out if there is another.

    Args:
        project: The stack.
        settings: Of .env.
        image: An image with both engines.

    Raises:
        StackError: The passphrase, a setting or the only storage is missing.
    """
    secrets_store.check_file(project, project.secrets / backup_config.PASSPHRASE)
    backup_storage.check(project, settings)
    files = {backup_config.PASSPHRASE: secrets_store.read(project, backup_config.PASSPHRASE)}
    files |= backup_storage.secrets(project)
    source = local_source(project, settings)
    storages = [name for name in backup_storage.names(settings) if name != backup_storage.LOCAL or source]
    if not storages:
        raise StackError(
            "cannot find the backups: their volume or folder does not exist",
            where=settings.get("BACKUP_FOLDER") or f"{settings['COMPOSE_PROJECT_NAME']}_{BACKUP_VOLUME}",
            hint="set BACKUP_FOLDER, or BACKUP_STORAGE and BACKUP_S3_*, in .env to the place that has them, or run "
            "./ops/stack up --profile backup, with your other profiles, to make some",
        )
    chosen = {**settings, "BACKUP_STORAGE": ",".join(storages)}
    return Repository(
        source if backup_storage.LOCAL in storages else "",
        image,
        backup_config.pgbackrest(chosen, files, PLACE),
        backup_config.restic(chosen, files, PLACE),
        files.get(backup_storage.CA, ""),
    )


def local_source(project: Project, settings: Mapping[str, str]) -> str:
    """Return the volume or the folder of the local storage; empty if it does not exist."""
    if folder := settings.get("BACKUP_FOLDER"):
        path = (project.compose_directory / folder).resolve()
        return str(path) if path.is_dir() else ""
    volume = f"{settings['COMPOSE_PROJECT_NAME']}_{BACKUP_VOLUME}"
    return volume if volume in compose.docker("volume", "ls", "--quiet").split() else ""


def command_line(repository: Repository, command: Sequence[str], options: Sequence[str] = ()) -> list[str]:
    """Return the command line of an engine beside the local storage, which it cannot change.

    Args:
        repository: The repositories.
        command: The engine and its arguments.
        options: Further options of `docker run`.
    """
    # Docker's default network has a route to S3.
    network = "bridge" if backup_storage.S3 in repository.storages else "none"
    placed = ["docker", "run", "--rm", "--interactive", *RESTRICTIONS, f"--network={network}"]
    placed += [f"--tmpfs=/tmp:size={CACHE}"]
    if repository.source:
        placed += [f"--volume={repository.source}:{backup_storage.FOLDER}:ro"]
    return [*placed, *options, "--entrypoint=sh", repository.image, "-c", TAKE_FILES, "sh", *command]


def files_of(repository: Repository, user: str) -> bytes:
    """Return a tar archive of what an engine reads: its environment, and the files that this names.

    Args:
        repository: The repositories; restic reads the first one.
        user: The engine's user.
    """
    files = {backup_storage.CA: repository.authority, backup_storage.RESTIC_CA: repository.authority}
    if user == DATABASE_USER:
        files["pgbackrest.conf"] = repository.configuration
        environment = {"PGBACKREST_CONFIG": f"{PLACE}/pgbackrest.conf", "PGBACKREST_STANZA": backup_config.STANZA}
    else:
        environment = dict(repository.environments[repository.storages[0]])
    files["environment"] = "".join(f"export {name}={shlex.quote(text)}\n" for name, text in environment.items())
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text.encode()), 0o600
            archive.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


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
    arguments = command_line(repository, command, [f"--name={name}", f"--user={user}", *options])
    text: bytes | None = files_of(repository, user)
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
    """Return the sets of all storages.

    Raises:
        StackError: None of them can be read and has a backup.
    """
    by_storage: dict[str, Contents | StackError] = {}
    for storage in repository.storages:
        try:
            by_storage[storage] = contents_of(repository.only(storage))
        except StackError as error:
            by_storage[storage] = error
    return sets.join(by_storage)


def contents_of(repository: Repository) -> Contents:
    """Return the sets of a repository of one storage.

    Raises:
        StackError: It cannot be read, or has no backup.
    """
    information = run(repository, DATABASE_USER, *INFORMATION, seconds=time_limits.COMMAND)
    if information.returncode != 0:
        raise sets.unreadable(text_of(information)[-1])
    text = information.stdout.decode(errors="replace")
    sets.parse(text, "")  # restic would wait 15 minutes for a server that does not answer
    listing = ("timeout", str(S3_SECONDS), *RESTIC, "snapshots", "--json")
    snapshots = run(repository, FILES_USER, *listing, seconds=time_limits.COMMAND)
    return sets.parse(text, snapshots.stdout.decode() if snapshots.returncode == 0 else "")


def check_s3(project: Project, settings: Mapping[str, str], image: str, *, is_running: bool) -> str:
    """Refuse S3 settings that the server refuses, and return a warning if it does not answer; empty if it does.

    Args:
        project: The stack.
        settings: Of .env.
        image: An image with both engines.
        is_running: Whether the stack runs. Only then may the server be down.

    Raises:
        StackError: The server refuses the settings, or its repository has another passphrase.
    """
    if not backup_config.is_on(settings) or backup_storage.S3 not in backup_storage.names(settings):
        return ""
    source = of_stack(project, {**settings, "BACKUP_STORAGE": backup_storage.S3}, image)
    result = run(source, DATABASE_USER, "timeout", str(S3_SECONDS), *INFORMATION)
    try:
        if result.returncode != 0:
            raise sets.unreadable(f"timeout after {S3_SECONDS} s")
        sets.parse(result.stdout.decode(errors="replace"), "")
    except StackError as error:
        if not error.where or (is_running and error.where.startswith(backup_storage.REQUIRED[0])):
            return "" if error.what == sets.NO_BACKUP else error.what
        raise
    return ""


def text_of(result: subprocess.CompletedProcess[bytes]) -> list[str]:
    """Return the lines that a failed engine wrote."""
    lines = (result.stdout + result.stderr).decode(errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip()] or ["no output"]


def failure(what: str, result: subprocess.CompletedProcess[bytes], hint: str) -> StackError:
    """Return the error of a failed engine, with its last lines."""
    return StackError(f"{what}:\n" + "\n".join(text_of(result)[-SHOWN_LINES:]), hint=hint, code=FAILURE)
