"""generated/: what Prometheus and Alertmanager read and `up` works out from .env and the secrets that exist.

No secret is in it: Alertmanager's are files that its configuration names. The containers mount the folders, so that a
new file is seen by them; `load` tells them to read it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ops import (
    compose,
    compose_override,
    secrets_store,
)
from ops.atomic_file import write_atomically
from ops.errors import FAILURE, StackError
from ops.observability import alertmanager_config, container_names, expected_replicas
from ops.project import RUNBOOK_BASE_URL
from ops.services import ALERTMANAGERS, page_urls
from ops.settings_file import image_origins

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from ops.project import Project

READERS: Final = {"rules": ("prometheus",), "alertmanager": ALERTMANAGERS}
"""The services that read each folder."""
TO_LOAD: Final = ".to-load"
"""Names the folders with something new that nobody was told of yet: an `up` that was interrupted is made up for."""


def texts(
    folder: Path,
    settings: Mapping[str, str],
    secrets: Collection[str],
    own_workers: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Every generated file, by its path.

    Args:
        folder: alerting/alertmanager.
        settings: .env.
        secrets: Which optional secrets exist.
        own_workers: The component of each worker service of the operator's own.
    """
    return {
        "rules/wanted.yaml": expected_replicas.rules(settings, own_workers),
        "alertmanager/alertmanager.yaml": alertmanager_config.render(folder, settings, secrets),
        "alertmanager/links.tmpl": links(settings),
    }


def links(settings: Mapping[str, str]) -> str:
    """The addresses in messages: the operator's, or those of this machine."""
    pages = page_urls(settings)
    airflow = settings.get("AIRFLOW_URL") or pages["airflow"]
    grafana = settings.get("GRAFANA_URL") or pages.get("grafana", "")
    runbooks = settings.get("RUNBOOK_BASE_URL") or RUNBOOK_BASE_URL
    # Debian's Alertmanager has no web pages.
    official = image_origins(settings).get("ALERTMANAGER_IMAGE", {}).get("origin") == "official"
    silences = pages.get("alertmanager", "") if official else ""
    return alertmanager_config.links(*(address.rstrip("/") for address in (airflow, grafana, runbooks, silences)))


def write(project: Project, settings: Mapping[str, str]) -> bool:
    """Writes what has changed; returns whether anything has.

    Raises:
        StackError: This user may not.
    """
    folder = project.root / alertmanager_config.FOLDER
    files = texts(folder, settings, secrets_store.optional(project), compose_override.own_workers(project))
    try:
        changed = [name for name, text in files.items() if _write(project.generated, name, text)]
    except OSError as error:
        raise StackError(
            f"the rules and routes cannot be written: {error.strerror}",
            where=project.shown(project.generated),
            hint="run this as who ran ./ops/stack up first",
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
    """Tells those that run to read what is new: the containers' names too, which are known only now.

    Args:
        project: The stack.
        name: Its compose project.
    """
    found = compose.instances(name)
    _write(project.generated, "rules/containers.yaml", container_names.rules(found))
    marker = project.generated / TO_LOAD
    if not marker.exists():
        return
    folders = set(marker.read_text(encoding="utf-8").split())
    services = [service for folder, readers in READERS.items() if folder in folders for service in readers]
    running = [instance.id for instance in compose.in_state(found, "running", services)]
    if running:
        compose.docker("kill", "--signal=HUP", *running)
    marker.unlink()
