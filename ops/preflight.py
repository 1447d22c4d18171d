"""The checks of `up` before it changes anything."""

from __future__ import annotations

import errno
import shutil
import socket
import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from airflow_ha.sizes import GIB
from ops import (
    backup_config,
    backup_storage,
    compose,
    container_limits,
    external_data,
    inner_tls,
    secrets_backend,
    secrets_store,
    single_sign_on,
)
from ops.errors import StackError
from ops.observability import alertmanager_config
from ops.project import dags_folder, plugins_folder
from ops.services import DATA_PROFILES, POSTGRES_NODES, published_with
from ops.settings_file import profiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ops.project import Project


MEMORY_NEEDED = 4 * GIB
"""Available memory for a first start: the idle stack takes 2.9 GiB, a pipeline run some hundreds of MiB more."""
REPLICAS_MEMORY = 1 * GIB
"""Further memory for profile data-ha: the second Postgres, etcd, the Redis replicas and the Sentinels."""
DOCKER_SECONDS = 30.0
DISK_NEEDED = 8 * GIB
"""Free space for Docker's data: 1.7 GiB of images, twice that of build caches, and room for logs and the database."""

FREE_HINT = "free disk space, for example with docker system prune"


def check(project: Project, settings: Mapping[str, str]) -> None:
    """Check Docker, DAG files, secrets, ports, memory and disk; change nothing.

    Raises:
        StackError: The first failed check.
    """
    check_docker()
    for run in checks(project, settings):
        run()


def problems(project: Project, settings: Mapping[str, str]) -> list[StackError]:
    """Return the error of every failed check, on a machine where this user can use Docker."""
    found = []
    for run in checks(project, settings):
        try:
            run()
        except StackError as error:
            found.append(error)
    return found


def checks(project: Project, settings: Mapping[str, str]) -> Iterator[Callable[[], None]]:
    """Yield the checks that follow that of Docker; each raises StackError."""
    yield partial(check_dags, project, settings)
    external = not set(profiles(settings)).intersection(DATA_PROFILES)
    if external:
        yield partial(check_external, project, settings)
    yield partial(external_data.check, project, settings)
    yield partial(secrets_backend.check, project, settings, partial(check_secret, project))
    yield partial(single_sign_on.check, project, settings, partial(check_secret, project))
    name = settings["COMPOSE_PROJECT_NAME"]
    by_service = compose.instances(name)
    running = {service for service in by_service if compose.in_state(by_service, "running", [service])}
    yield partial(inner_tls.check, project, settings, running)
    databases = {f"{name}_{service}-data" for service in ("postgres", *POSTGRES_NODES)}
    yield partial(
        secrets_store.check, project, lambda: not databases.isdisjoint(compose.volumes(name)), external=external
    )
    if backup_config.is_on(settings):
        yield partial(check_backup, project, settings)
    optional, env_file = secrets_store.optional(project), project.shown(project.env_file)
    yield partial(alertmanager_config.check_email, settings, optional, env_file)
    yield from machine_checks(project, settings, by_service)


def machine_checks(
    project: Project, settings: Mapping[str, str], by_service: Mapping[str, list[compose.Instance]]
) -> Iterator[Callable[[], None]]:
    """Yield the checks of the machine: ports, and memory and disk for a first start.

    Args:
        project: The stack.
        settings: The settings of .env.
        by_service: Its containers.
    """
    own_ports = frozenset[int]().union(*(instance.ports for each in by_service.values() for instance in each))
    yield partial(check_ports, project, settings, own=own_ports)
    yield partial(container_limits.check_machine, project, settings, machine_memory())
    if not compose.in_state(by_service, "running"):
        yield partial(check_memory, MEMORY_NEEDED + (REPLICAS_MEMORY if "data-ha" in profiles(settings) else 0))
        yield check_disk


def check_docker() -> None:
    """Refuse a machine where this user cannot use Docker."""
    if not shutil.which("docker"):
        raise StackError(
            "cannot start containers: Docker is not installed",
            hint="run this as root on Debian or Ubuntu to install Docker, or follow "
            "https://docs.docker.com/engine/install/",
        )
    version = ["docker", "version", "--format", "{{.Server.Version}}"]
    try:
        result = subprocess.run(version, capture_output=True, text=True, check=False, timeout=DOCKER_SECONDS)
    except subprocess.TimeoutExpired:
        raise StackError(
            f"cannot use Docker: the daemon has not answered for {DOCKER_SECONDS:.0f} s",
            hint="run sudo systemctl restart docker",
        ) from None
    stderr = result.stderr.strip()
    if "permission denied" in stderr.lower():
        raise StackError(
            "cannot use Docker: permission denied",
            where=stderr.splitlines()[-1],
            hint="run sudo usermod -aG docker $USER and log in again, or run this with sudo",
        )
    if result.returncode != 0:
        raise StackError(
            "cannot use Docker: the daemon does not answer", where=stderr, hint="run sudo systemctl start docker"
        )


def check_dags(project: Project, settings: Mapping[str, str]) -> None:
    """Refuse DAG files and plugins that the containers' user cannot read."""
    for variable, folder in (
        ("DAGS_DIR", dags_folder(project, settings)),
        ("PLUGINS_DIR", plugins_folder(project, settings)),
    ):
        if not folder.is_dir():
            raise StackError(
                f"cannot read {variable}: it is not a folder",
                where=str(folder),
                hint=f"create the folder, or set another {variable} in .env",
            )
        for path in [folder, *sorted(folder.glob("*.py"))]:
            required = 0o005 if path.is_dir() else 0o004
            if path.stat().st_mode & required != required:
                raise StackError(
                    f"cannot mount {variable}: the containers' user cannot read this file or folder",
                    where=project.shown(path),
                    hint=f"run: chmod -R a+rX {project.shown(folder)}",
                )


def check_secret(project: Project, name: str) -> None:
    """Refuse a secret of one line that is not valid."""
    secrets_store.check_file(project, project.secrets / name)


def check_external(project: Project, settings: Mapping[str, str]) -> None:
    """Refuse a stack without a data profile whose .env names no external Postgres and Redis."""
    for variable, service in (("POSTGRES_HOST", "postgres"), ("REDIS_HOST", "redis")):
        if settings[variable] == service:
            env_file = project.shown(project.env_file)
            raise StackError(
                f"cannot start without {service}: profile {' or '.join(DATA_PROFILES)} is off, and {variable} names no "
                "external host",
                where=env_file,
                hint=f"set {variable} in {env_file}, or add --profile {DATA_PROFILES[0]}",
            )


def check_backup(project: Project, settings: Mapping[str, str]) -> None:
    """Refuse backups that nobody could read, or into a folder that the containers cannot write.

    The operator cannot copy a passphrase that does not exist, so it is generated here.
    """
    if not (project.secrets / backup_config.PASSPHRASE).exists():
        secrets_store.generate(project)
    backup_config.check_passphrase_is_stored(project, settings)
    backup_storage.check(project, settings)
    for name in (backup_storage.KEY, backup_storage.KEY_SECRET):
        if (project.secrets / name).exists():
            secrets_store.check_file(project, project.secrets / name)
    if folder := settings.get("BACKUP_FOLDER"):
        path = (project.compose_directory / folder).resolve()
        if not path.is_dir() or path.stat().st_mode & 0o1777 != 0o1777:
            raise StackError(
                "cannot write backups: BACKUP_FOLDER is no folder that each of the two backup users can write",
                where=str(path),
                hint=f"run: sudo install --directory --mode=1777 {path}",
            )


def check_ports(project: Project, settings: Mapping[str, str], own: frozenset[int]) -> None:
    """Refuse a port that something else listens on, and a port that two settings share.

    Args:
        project: The stack.
        settings: The settings of .env.
        own: The host ports that this stack's containers already publish.
    """
    address = settings["BIND_ADDRESS"]
    shown = project.shown(project.env_file)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    taken: dict[int, str] = {}
    for published in published_with(profiles(settings)):
        variable = published.port
        port = int(settings[variable])
        if port in taken:
            raise StackError(
                f"cannot publish {taken[port]} and {variable}: both are port {port}",
                where=shown,
                hint="choose another port for one of them",
            )
        taken[port] = variable
        if port in own:
            continue
        with socket.socket(family) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((address, port))
            except PermissionError:
                continue  # a port below 1024: Docker may bind it although this user may not
            except OSError as error:
                holder = port_holder(port) if error.errno == errno.EADDRINUSE else ""
                raise StackError(
                    f"cannot publish port {port} for {published.service}: {holder or error.strerror}",
                    where=f"{address}:{port} ({variable} in {shown})",
                    hint=f"stop what uses the port, or set another {variable} in {shown}",
                ) from None


def port_holder(port: int) -> str:
    """Return what listens on a port, as a clause; empty if this user cannot see it."""
    if container := compose.docker("ps", f"--filter=publish={port}", "--format={{.Names}}").strip():
        return f"container {container} listens on it"
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:  # macOS requires root for this
        return ""
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and port in connection.laddr:
            if connection.pid is None:
                return "a process of another user listens on it"
            try:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid}) listens on it"
            except psutil.NoSuchProcess:
                continue
    return ""


def check_memory(needed: int = MEMORY_NEEDED) -> None:
    """Refuse a machine with too little available memory.

    Args:
        needed: Bytes.
    """
    available = psutil.virtual_memory().available
    if available < needed:
        raise StackError(
            f"cannot start: {needed / GIB:.1f} GiB of memory are required, {available / GIB:.1f} GiB are available",
            where="this machine",
            hint="stop other programs, or use a larger machine",
        )


def machine_memory() -> int:
    """Return the memory in bytes of the machine that Docker runs on, a virtual one with Docker Desktop."""
    return int(compose.docker("info", "--format", "{{.MemTotal}}").strip() or 0)


def check_disk(what: str = "start", needed: int = DISK_NEEDED) -> None:
    """Refuse a disk with too little free space for Docker's data.

    Args:
        what: What needs it, as a verb phrase.
        needed: Bytes.
    """
    data = Path(compose.docker("info", "--format", "{{.DockerRootDir}}").strip())
    # Docker Desktop keeps its data inside its virtual machine.
    if not data.exists():
        return
    check_free(what, needed, shutil.disk_usage(data).free, str(data))


def check_free(what: str, needed: int, free: int, where: str, hint: str = FREE_HINT) -> None:
    """Refuse a disk with less free space than needed, both in bytes."""
    if free < needed:
        raise StackError(
            f"cannot {what}: {needed / GIB:.1f} GiB of disk space are required, {free / GIB:.1f} GiB are free",
            where=where,
            hint=hint,
        )
