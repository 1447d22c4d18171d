"""generated/: configuration of Prometheus and Alertmanager that `up` derives from .env and the existing secrets.

It has no secrets: Alertmanager's configuration names their files. The containers mount the folders; `load` makes them
read new files.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from ops import (
    compose,
    compose_override,
    inner_tls,
    secrets_store,
)
from ops.atomic_file import write_atomically
from ops.errors import FAILURE, StackError
from ops.observability import alertmanager_config, certificate_expiry, container_names, expected_replicas
from ops.project import RUNBOOK_BASE_URL
from ops.services import ALERTMANAGERS, BACKUP, BACKUP_FILES, BACKUP_NODES, page_urls
from ops.settings_file import image_origins

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from ops.project import Project

READERS: Final = {"rules": ("prometheus",), "alertmanager": ALERTMANAGERS}
"""The services that read each folder."""
BACKUP_PORT: Final = 9854
"""The port of the page of each backup service (compose/backup/backup_service.py)."""
TO_LOAD: Final = ".to-load"
"""File with the folders that changed and are not loaded yet: it survives an interrupted `up`."""


def texts(
    folder: Path,
    settings: Mapping[str, str],
    secrets: Collection[str],
    own_workers: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the text of every generated file, by its path.

    Args:
        folder: alerting/alertmanager.
        settings: Of .env.
        secrets: The optional secrets that exist.
        own_workers: The component of each of the operator's own worker services.
    """
    return {
        "rules/wanted.yaml": expected_replicas.rules(settings, own_workers),
        "rules/backup.json": backup_targets(settings),
        "alertmanager/alertmanager.yaml": alertmanager_config.render(folder, settings, secrets),
        "alertmanager/links.tmpl": links(settings),
    }


def backup_targets(settings: Mapping[str, str]) -> str:
    """Return the backup services that Prometheus scrapes, none without the profile `backup`."""
    active = set(settings.get("COMPOSE_PROFILES", "").split(","))
    on = [nodes for tier, nodes in BACKUP_NODES.items() if {BACKUP, tier} <= active]
    return json.dumps(
        [
            {"targets": [f"{node}:{BACKUP_PORT}"], "labels": {"instance": node}}
            for nodes in on
            for node in (*nodes, BACKUP_FILES)
        ]
    )


def links(settings: Mapping[str, str]) -> str:
    """Return the templates with the addresses in messages: those of the settings, or of this machine."""
    pages = page_urls(settings)
    airflow = settings.get("AIRFLOW_URL") or pages["airflow"]
    grafana = settings.get("GRAFANA_URL") or pages.get("grafana", "")
    runbooks = settings.get("RUNBOOK_BASE_URL") or RUNBOOK_BASE_URL
    # Debian's Alertmanager has no UI.
    official = image_origins(settings).get("ALERTMANAGER_IMAGE", {}).get("origin") == "official"
    silences = pages.get("alertmanager", "") if official else ""
    return alertmanager_config.links(*(address.rstrip("/") for address in (airflow, grafana, runbooks, silences)))


def write(project: Project, settings: Mapping[str, str]) -> bool:
    """Write the files that changed; return whether any did.

    Raises:
        StackError: This user may not write them.
    """
    folder = project.root / alertmanager_config.FOLDER
    expiries = inner_tls.expiries(project, settings)
    files = {"rules/certificates.yaml": certificate_expiry.rules(expiries)}
    files |= texts(folder, settings, secrets_store.optional(project), compose_override.own_workers(project))
    try:
        changed = [name for name, text in files.items() if _write(project.generated, name, text)]
    except OSError as error:
        raise StackError(
            f"cannot write the rules and routes: {error.strerror}",
            where=project.shown(project.generated),
            hint="run this as the user who ran ./ops/stack up first",
            code=FAILURE,
        ) from error
    return bool(changed)


def _write(root: Path, name: str, text: str) -> bool:
    path = root / name
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    for folder in (root, path.parent):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
    with (root / TO_LOAD).open("a", encoding="utf-8") as file:
        file.write(path.parent.name + "\n")
    write_atomically(path, text, 0o644)
    return True


def load(project: Project, name: str) -> None:
    """Write the containers' names, and make running services reload the folders that changed.

    Args:
        project: The stack.
        name: Its compose project.
    """
    instances = compose.instances(name)
    _write(project.generated, "rules/containers.yaml", container_names.rules(instances))
    marker = project.generated / TO_LOAD
    if not marker.exists():
        return
    folders = set(marker.read_text(encoding="utf-8").split())
    services = [service for folder, readers in READERS.items() if folder in folders for service in readers]
    running = [container.id for container in compose.in_state(instances, "running", services)]
    if running:
        compose.docker("kill", "--signal=HUP", *running)
    marker.unlink()
