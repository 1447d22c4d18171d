"""compose.override.yaml: the operator's own additions, taken as `docker compose` by hand takes them.

Its own worker services are those that extend the service `worker`; see compose/compose.override.example.yaml.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import yaml

from ops.errors import StackError

if TYPE_CHECKING:
    from pathlib import Path

    from ops.project import Project

NAMES: Final = ("compose.override.yml", "compose.override.yaml")
"""In the order in which compose looks for them beside compose.yaml; it takes the first."""
WORKER: Final = "worker"
COMPONENT: Final = "AIRFLOW_HA_COMPONENT"


def path(project: Project) -> Path | None:
    """Return the override file, beside .env; None when there is none."""
    return next((file for name in NAMES if (file := project.state / name).exists()), None)


def own_workers(project: Project) -> dict[str, str]:
    """Return the component, as metrics and alerts name it, of each worker service of the operator's own.

    Raises:
        StackError: The override file is not valid.
    """
    file = path(project)
    if file is None:
        return {}
    shown = project.shown(file)
    try:
        model = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        services: dict[str, Any] = model.get("services") or {}
        found = {
            name: _component(service.get("environment") or {})
            for name, service in services.items()
            if service and _extended(service.get("extends")) == WORKER
        }
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError) as error:
        raise StackError(
            f"cannot read the override file: {' '.join(str(error).split())}",
            where=shown,
            hint="see compose/compose.override.example.yaml for its form",
        ) from error
    for name, component in found.items():
        # Alert routes and metrics tell workers from other components by the beginning of the name.
        if not component.startswith(WORKER):
            raise StackError(
                f"{COMPONENT} of {name} is {component!r}, which does not begin with {WORKER!r}",
                where=shown,
                hint=f"call it {WORKER}-{component}",
            )
    return found


def _extended(extends: Any) -> str | None:
    return extends.get("service") if isinstance(extends, dict) else extends


def _component(environment: dict[str, Any] | list[str]) -> str:
    if isinstance(environment, list):
        environment = dict(entry.split("=", 1) for entry in environment if "=" in entry)
    return str(environment.get(COMPONENT, WORKER))
