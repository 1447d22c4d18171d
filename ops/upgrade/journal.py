"""The record of an upgrade that has started to change the stack: all that the way back needs.

It is removed when the upgrade, or the return, is complete. So an upgrade that was killed is known, and can be reverted.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from ops import secrets_store, settings_file
from ops.atomic_file import write_atomically
from ops.errors import StackError
from ops.observability.generated_config import READERS, TO_LOAD

if TYPE_CHECKING:
    from pathlib import Path

    from ops.project import Project

FOLDER: Final = "upgrade"
RECORD: Final = "journal.json"
FILES: Final = "files"
ENV, GENERATED, MOUNTED = "env", "generated", "mounted"
"""What is kept: .env, generated/ and secrets/mounted/ are all that `configure` writes beside new secrets."""


@dataclass(frozen=True)
class Journal:
    """What an upgrade changes.

    Attributes:
        version: The branch or commit that was checked out; empty if the upgrade checks none out.
        target: The version to which it upgrades, for messages.
        started: When it started, as text.
        has_copy: Whether the database was copied. Only then may a copy replace the database.
    """

    version: str
    target: str
    started: str
    has_copy: bool = False


def folder(project: Project) -> Path:
    """Return the folder of the record, in the stack's state."""
    return project.state / FOLDER


def worktree(project: Project) -> Path:
    """Return the folder in which the files of the new version are checked before they are checked out."""
    return folder(project) / FILES


def begin(project: Project, journal: Journal) -> None:
    """Keep the files that `up` writes as they are, and write the record."""
    path = folder(project)
    path.mkdir(parents=True, exist_ok=True)
    remove_kept(path)
    shutil.copy2(project.env_file, path / ENV)
    shutil.copytree(project.generated, path / GENERATED)
    secrets_store.copy_mounted(project.secrets / MOUNTED, path / MOUNTED, airflow_image(path))
    write(project, journal)


def write(project: Project, journal: Journal) -> None:
    """Write the record."""
    write_atomically(folder(project) / RECORD, json.dumps(asdict(journal), indent=1) + "\n")


def read(project: Project) -> Journal | None:
    """Return the record of an upgrade that did not end; None without one."""
    try:
        return Journal(**json.loads((folder(project) / RECORD).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def restore_files(project: Project) -> None:
    """Write the files that `up` writes as they were.

    Secrets that the new version generated stay: Postgres may know them, and the version before ignores them. The files
    in generated/ are replaced one by one: the containers mount its folders.
    """
    path = folder(project)
    write_atomically(project.env_file, (path / ENV).read_text(encoding="utf-8"))
    for file in project.generated.rglob("*"):
        if file.is_file() and not (path / GENERATED / file.relative_to(project.generated)).exists():
            file.unlink()
    shutil.copytree(path / GENERATED, project.generated, dirs_exist_ok=True)
    (project.generated / TO_LOAD).write_text("\n".join(READERS), encoding="utf-8")
    secrets_store.bring_back(project, path / MOUNTED, airflow_image(path))


def airflow_image(path: Path) -> str:
    """Return the Airflow image of the kept settings, which is on this machine."""
    return settings_file.parse(path / ENV, ENV).get("AIRFLOW_IMAGE", "")


def remove_kept(path: Path) -> None:
    """Remove the kept files."""
    (path / ENV).unlink(missing_ok=True)
    for name in (GENERATED, MOUNTED):
        shutil.rmtree(path / name, ignore_errors=True)


def end(project: Project) -> None:
    """Remove the record, then what it kept."""
    path = folder(project)
    (path / RECORD).unlink(missing_ok=True)
    remove_kept(path)


def refuse_unfinished(project: Project, command: str) -> None:
    """Refuse a command while an upgrade has not ended.

    Raises:
        StackError: An upgrade was interrupted, and its return too.
    """
    if journal := read(project):
        raise StackError(
            f"cannot run {command}: the upgrade to {journal.target} of {journal.started} has not ended",
            where=project.shown(folder(project) / RECORD),
            hint="run ./ops/stack upgrade, which first returns to the version before; if it cannot, delete this file "
            "to stay on this version",
        )
