"""What must be true before `up` changes anything."""

from __future__ import annotations

import errno
import shutil
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from ops import (
    compose,
    container_limits,
    secrets_store,
)
from ops.errors import StackError
from ops.observability import alertmanager_config
from ops.project import dags_folder, plugins_folder
from ops.services import DATA_PROFILES, POSTGRES_NODES, PUBLISHED, chosen_profile
from ops.settings_file import profiles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ops.project import Project

GIB = 1024**3

MEMORY_NEEDED = 4 * GIB
"""Available before a first start: the stack at rest takes 2.9 GiB, and a pipeline run some hundreds of MiB more."""
REPLICAS_MEMORY = 1 * GIB
"""What the profile data-ha needs beyond that: the second Postgres, etcd, the replicas of Redis and the Sentinels."""
DISK_NEEDED = 8 * GIB
"""Free where Docker keeps its data: images 1.7 GiB, their build caches twice that, room for logs and the database."""


def check(project: Project, settings: Mapping[str, str]) -> None:
    """Everything that can be known to fail before anything is changed.

    Raises:
        StackError: The first thing that is wrong, and its hint.
    """
    check_docker()
    check_dags(project, settings)
    external = not set(profiles(settings)).intersection(DATA_PROFILES)
    if external:
        check_external(project, settings)
    name = settings["COMPOSE_PROJECT_NAME"]
    found = [instance for of in compose.instances(name).values() for instance in of]
    databases = {f"{name}_{service}-data" for service in ("postgres", *POSTGRES_NODES)}
    secrets_store.check(project, lambda: not databases.isdisjoint(compose.volumes(name)), external=external)
    alertmanager_config.check_email(settings, secrets_store.optional(project), project.shown(project.env_file))
    check_ports(project, settings, own=frozenset[int]().union(*(instance.ports for instance in found)))
    container_limits.check_machine(project, settings, machine_memory())
    if not any(instance.state == "running" for instance in found):
        check_memory(MEMORY_NEEDED + (REPLICAS_MEMORY if "data-ha" in profiles(settings) else 0))
        check_disk()


def check_docker() -> None:
    """Refuses a machine where Docker does not answer this user."""
    if not shutil.which("docker"):
        raise StackError(
            "Docker is not installed",
            hint="run this as root on Debian or Ubuntu and it is installed, or see https://docs.docker.com/engine/install/",
        )
    result = subprocess.run(
        ["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True, check=False
    )
    said = result.stderr.strip()
    if "permission denied" in said.lower():
        raise StackError(
            "this user may not use Docker",
            where=said.splitlines()[-1],
            hint="sudo usermod -aG docker $USER, log in again; or run this with sudo",
        )
    if result.returncode != 0:
        raise StackError("the Docker daemon does not answer", where=said, hint="start it: sudo systemctl start docker")


def check_dags(project: Project, settings: Mapping[str, str]) -> None:
    """Refuse DAG files and plugins that the containers' user could not read."""
    for variable, folder in (
        ("DAGS_DIR", dags_folder(project, settings)),
        ("PLUGINS_DIR", plugins_folder(project, settings)),
    ):
        if not folder.is_dir():
            raise StackError(
                f"{variable} is no folder", where=str(folder), hint=f"make it, or put another {variable} into .env"
            )
        for path in [folder, *sorted(folder.glob("*.py"))]:
            needed = 0o005 if path.is_dir() else 0o004
            if path.stat().st_mode & needed != needed:
                raise StackError(
                    f"the containers' user cannot read this file or folder of {variable}",
                    where=project.shown(path),
                    hint=f"chmod -R a+rX {project.shown(folder)}",
                )


def check_external(project: Project, settings: Mapping[str, str]) -> None:
    """Refuses to leave out Postgres and Redis when no others are named."""
    for variable, ours in (("POSTGRES_HOST", "postgres"), ("REDIS_HOST", "redis")):
        if settings[variable] == ours:
            env_file = project.shown(project.env_file)
            raise StackError(
                f"without the profile {' or '.join(DATA_PROFILES)} there is no {ours}, and {variable} names no other",
                where=env_file,
                hint=f"put {variable}=… into {env_file}, or add --profile {DATA_PROFILES[0]}",
            )


def check_ports(project: Project, settings: Mapping[str, str], own: frozenset[int]) -> None:
    """Refuses a port that something else listens on.

    Args:
        project: The stack.
        settings: Its .env.
        own: The ports that lead to this stack's own containers.
    """
    address = settings["BIND_ADDRESS"]
    shown = project.shown(project.env_file)
    taken: dict[int, str] = {}
    chosen = {"", *profiles(settings)}
    for published in PUBLISHED:
        if chosen_profile(published) not in chosen:
            continue
        variable = published.port
        port = int(settings[variable])
        if port in taken:
            raise StackError(
                f"{taken[port]} and {variable} are the same port, {port}", where=shown, hint="give one of them another"
            )
        taken[port] = variable
        if port in own:
            continue
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((address, port))
            except PermissionError:
                continue  # a port under 1024, which Docker may use though this user may not
            except OSError as error:
                holder = who_listens(port) if error.errno == errno.EADDRINUSE else ""
                raise StackError(
                    f"port {port} cannot be used for {published.service}: {holder or error.strerror}",
                    where=f"{address}:{port} ({variable} in {shown})",
                    hint=f"end what holds it, or choose another: put {variable}=… into {shown}",
                ) from None


def who_listens(port: int) -> str:
    """Who holds a port, as far as this user may see; empty when nobody is seen."""
    if container := compose.docker("ps", f"--filter=publish={port}", "--format={{.Names}}").strip():
        return f"the container {container} listens on it"
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:  # macOS wants root for this
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
    """Refuses a machine with too little memory to spare."""
    available = psutil.virtual_memory().available
    if available < needed:
        raise StackError(
            f"too little memory: {needed / GIB:.1f} GiB are needed, {available / GIB:.1f} GiB are available",
            where="this machine",
            hint="end what uses it, or take a larger machine",
        )


def machine_memory() -> int:
    """Return the bytes of memory of the machine that Docker runs on: on a laptop that may be a virtual one."""
    return int(compose.docker("info", "--format", "{{.MemTotal}}").strip() or 0)


def check_disk() -> None:
    """Refuses a disk that is too full."""
    data = Path(compose.docker("info", "--format", "{{.DockerRootDir}}").strip())
    # Docker Desktop keeps its data in a machine of its own, whose folders are not here.
    if not data.exists():
        return
    free = shutil.disk_usage(data).free
    if free < DISK_NEEDED:
        raise StackError(
            f"too little disk: {DISK_NEEDED / GIB:.0f} GiB are needed, {free / GIB:.1f} GiB are free",
            where=str(data),
            hint="make room, for instance with docker system prune",
        )
