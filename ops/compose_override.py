"""compose.override.yaml: the operator's additions, which `docker compose` by hand reads too.

The operator's own worker services are those that extend the service `worker`; see
compose/compose.override.example.yaml.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import yaml

from ops.errors import StackError

if TYPE_CHECKING:
    from pathlib import Path

    from ops.project import Project

NAMES: Final = (
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)
"""Compose's names for an override file beside compose.yaml, in its order: it reads the first that exists."""
WORKER: Final = "worker"
REFERENCE = re.compile(r"\$\{?(\w+)")
COMPONENT: Final = "AIRFLOW_HA_COMPONENT"


def path(project: Project) -> Path | None:
    """Return the override file, beside .env; None when there is none."""
    return next((file for name in NAMES if (file := project.state / name).exists()), None)


def own_workers(project: Project) -> dict[str, str]:
    """Return each worker service of the operator with its component, its name in metrics and alerts.

    Raises:
        StackError: The override file is not valid.
    """
    file = path(project)
    if file is None:
        return {}
    where = project.shown(file)
    try:
        model = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        services: dict[str, Any] = model.get("services") or {}
        components = {
            name: _component(service.get("environment") or {})
            for name, service in services.items()
            if service and _extended_service(service.get("extends")) == WORKER
        }
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError) as error:
        raise StackError(
            f"cannot read the override file: {' '.join(str(error).split())}",
            where=where,
            hint="see compose/compose.override.example.yaml for its form",
        ) from error
    for name, component in components.items():
        # Alert routes and metrics recognize workers by the beginning of the name.
        if not component.startswith(WORKER):
            raise StackError(
                f"cannot use {COMPONENT}={component} for {name}: the value does not begin with {WORKER!r}",
                where=where,
                hint=f"set it to {WORKER}-{component}",
            )
    return components


def own_settings(project: Project) -> set[str]:
    """Return the names of the settings that the override file reads from .env."""
    file = path(project)
    return set(REFERENCE.findall(file.read_text(encoding="utf-8"))) if file else set()


def _extended_service(extends: Any) -> str | None:
    return extends.get("service") if isinstance(extends, dict) else extends


def _component(environment: dict[str, Any] | list[str]) -> str:
    if isinstance(environment, list):
        environment = dict(entry.split("=", 1) for entry in environment if "=" in entry)
    return str(environment.get(COMPONENT, WORKER))
