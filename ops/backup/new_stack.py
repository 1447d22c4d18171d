"""A new stack beside this one for a restored database: its own name, ports, folder of state and DAGs."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

from ops import compose, settings_file
from ops.errors import StackError
from ops.project import Project
from ops.services import BACKUP, PUBLISHED
from ops.setting_checks import KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping

NOT_TAKEN: Final = ("BACKUP_", "ALERT_EMAIL_", "OTLP_BACKEND_")
"""The beginnings of settings by which the new stack would write to the repository, or reach on-call engineers."""


def prepare(project: Project, saved: Mapping[str, str], name: str) -> tuple[Project, dict[str, str]]:
    """Return the new stack and its settings; nothing is written yet.

    It makes no backups, so that it cannot write to the repository of the other stack.

    Args:
        project: The stack that has the repository.
        saved: The settings of the backup.
        name: The compose project of the new stack.

    Raises:
        StackError: The name is not valid, or taken.
    """
    if not KINDS["COMPOSE_PROJECT_NAME"].accepts(name):
        raise StackError(
            f"cannot name the new stack {name!r}",
            where="--to-new-stack",
            hint=f"use {KINDS['COMPOSE_PROJECT_NAME'].takes}",
        )
    if compose.volumes(name) or compose.instances(name):
        raise StackError(
            f"cannot create the stack {name}: containers or volumes of this name exist",
            where="--to-new-stack",
            hint="use another name",
        )
    new = Project(project.root, project.state / "stacks" / name)
    profiles = [profile for profile in settings_file.profiles(saved) if profile != BACKUP]
    ports = zip(PUBLISHED, free_ports(len(PUBLISHED)), strict=True)
    defaults = settings_file.defaults(new)
    own = {
        **{key: defaults[key] for key in ("SECRETS_DIR", "GENERATED_DIR")},
        "COMPOSE_PROJECT_NAME": name,
        "COMPOSE_PROFILES": ",".join(profiles),
        "DAGS_DIR": str(new.state / "dags"),
        "PLUGINS_DIR": str(new.state / "dags/plugins"),
        **{published.port: str(port) for published, port in ports},
    }
    return new, {key: value for key, value in saved.items() if not key.startswith(NOT_TAKEN)} | own


def free_ports(number: int) -> list[int]:
    """Return ports of this host that nothing listens on."""
    listeners = [socket.socket() for _ in range(number)]
    try:
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [int(listener.getsockname()[1]) for listener in listeners]
    finally:
        for listener in listeners:
            listener.close()
