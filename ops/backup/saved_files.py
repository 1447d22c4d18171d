"""The files of a set, brought back where they are missing: nothing that exists is overwritten."""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ops import compose, compose_override, rotation_state, secrets_store, settings_file, token_keys
from ops.atomic_file import write_atomically
from ops.backup import repository
from ops.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ops.backup.repository import Repository
    from ops.backup.sets import BackupSet
    from ops.project import Project

SECRETS: Final = "/run/secrets/stack_secrets.json"
"""The paths in a snapshot are those of the service backup-files (compose/backup.yaml)."""
STATE: Final = "/set/state"
OF_THE_MACHINE: Final = ("SECRETS_DIR", "GENERATED_DIR", "BACKUP_REPOSITORY")
"""Settings that another machine decides itself."""
FERNET_KEY: Final = "fernet_key"
VOLUMES: Final = {"airflow-logs": "logs", "airflow-artifacts": "artifacts"}
"""The volumes of files, and their folders in a snapshot."""
MAY_CHANGE_OWNERS: Final = ("--user=0:0", "--cap-add=CHOWN", "--cap-add=DAC_OVERRIDE", "--cap-add=FOWNER")


def saved(source: Repository, snapshot: str, path: str) -> bytes:
    """Return a file of a snapshot, or a folder as a tar archive; empty if the snapshot has none.

    Raises:
        StackError: The snapshot cannot be read.
    """
    result = repository.run(source, repository.FILES_USER, *repository.RESTIC, "dump", snapshot, path)
    if result.returncode == 0:
        return result.stdout
    if b"not found in snapshot" in result.stderr:
        return b""
    raise repository.failure("cannot read the files of the backup", result, "run ./ops/stack backup list")


def saved_settings(source: Repository, snapshot: str) -> dict[str, str]:
    """Return the settings of a snapshot's .env, without those that the machine decides."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ".env"
        path.write_bytes(saved(source, snapshot, f"{STATE}/.env"))
        settings = settings_file.parse(path, "the .env of the backup")
    return {key: value for key, value in settings.items() if key not in OF_THE_MACHINE and not key.endswith("_IMAGE")}


def refuse_without_key(project: Project, chosen: BackupSet) -> None:
    """Refuse a restore after which nothing in the database could be decrypted.

    Raises:
        StackError: Neither the machine nor the backup has a Fernet key.
    """
    if not chosen.files and not (project.secrets / FERNET_KEY).exists():
        raise StackError(
            "cannot restore: this machine has no Fernet key, and the files of the backup cannot be read",
            where=chosen.label,
            hint=f"write the former key into {project.shown(project.secrets / FERNET_KEY)}, or choose a backup with "
            "files: ./ops/stack backup list",
        )


def restore_secrets(project: Project, source: Repository, snapshot: str, left_out: Collection[str] = ()) -> list[str]:
    """Write the secrets that are missing, and return their names.

    A Fernet key that differs from the current one is added to it: the database is encrypted with the older one.

    Args:
        project: The stack.
        source: The repository.
        snapshot: The snapshot.
        left_out: The names of secrets that are not written.
    """
    stored: dict[str, str] = json.loads(saved(source, snapshot, SECRETS) or b"{}")
    secrets = {name: text for name, text in stored.items() if name not in left_out}
    project.secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
    current = {name: secrets_store.read(project, name) for name in secrets if (project.secrets / name).exists()}
    new = {name: text for name, text in secrets.items() if name not in current}
    if FERNET_KEY in current and secrets[FERNET_KEY] not in current[FERNET_KEY].split(","):
        new[FERNET_KEY] = f"{current[FERNET_KEY]},{secrets[FERNET_KEY]}"
    for name, text in new.items():
        write_atomically(project.secrets / name, text + "\n", secrets_store.OWNER_ONLY)
    rotation_state.note_used(project, new)
    return sorted(new)


def restore_override(project: Project, source: Repository, snapshot: str) -> str:
    """Write the operator's override file if the stack has none, and return its name; empty if nothing was written."""
    for name in () if compose_override.path(project) else compose_override.NAMES:
        if content := saved(source, snapshot, f"{STATE}/{name}"):
            write_atomically(project.state / name, content.decode())
            return name
    return ""


def renew_token_secrets(project: Project) -> None:
    """Replace the keys that sign tokens: those of before the restore are refused, also if they were revoked since."""
    (project.secrets / token_keys.FORMER).unlink(missing_ok=True)
    for name in (*token_keys.TRUSTED, "api_secret_key"):
        value = secrets_store.GENERATORS[name]()
        write_atomically(project.secrets / name, value + "\n", secrets_store.OWNER_ONLY)


def restore_folder(source: Repository, snapshot: str, path: str, target: Path) -> int:
    """Write the files of a folder that are missing in `target`, and return how many.

    Args:
        source: The repository.
        snapshot: The snapshot.
        path: The folder in it.
        target: A folder of the host, created if it is missing.
    """
    archive = saved(source, snapshot, path)
    if not archive:
        return 0
    written = 0
    target.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        for member in files:
            name = Path(member.name.lstrip("/")).relative_to(path.lstrip("/"))
            if member.isfile() and not (target / name).exists():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                content = files.extractfile(member)
                (target / name).write_bytes(content.read() if content else b"")
                (target / name).chmod(member.mode & 0o777)
                written += 1
    return written


def report_restore(report: Callable[[str], None], folder: str, seconds: float) -> None:
    """Report that a folder is being restored."""
    report(f"restoring missing {folder} … {seconds:.0f} s")


def restore_volumes(
    source: Repository, snapshot: str, stack: str, airflow_image: str, report: Callable[[str], None]
) -> None:
    """Write the logs and artifacts that are missing in the volumes of a stack.

    Args:
        source: The repository.
        snapshot: The snapshot.
        stack: The compose project.
        airflow_image: Gives a new volume its owner.
        report: Receives a line of progress.

    Raises:
        StackError: The snapshot cannot be read.
    """
    for volume, folder in VOLUMES.items():
        name = compose.create_volume(stack, volume)
        mount = f"--volume={name}:/opt/airflow/{folder}"
        compose.docker("run", "--rm", "--network=none", mount, "--entrypoint=true", airflow_image)
        result = repository.run(
            source,
            repository.FILES_USER,
            *repository.RESTIC,
            *("restore", f"{snapshot}:/set/{folder}", f"--target=/set/{folder}", "--overwrite=never"),
            options=[f"--volume={name}:/set/{folder}", *MAY_CHANGE_OWNERS],
            report=partial(report_restore, report, folder),
        )
        if result.returncode != 0:
            raise repository.failure(f"cannot restore the {folder}", result, "fix the cause, then run this again")
