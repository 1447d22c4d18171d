"""What the containers of the profile `backup` read: the repository, its passphrase, and the secrets that a set holds.

Postgres pushes its log with pgBackRest, and the backup services make backups with it; restic backs up files. Both
encrypt with the secret `backup_passphrase` before anything leaves the container. While the profile is off, the files
are empty, and Postgres archives nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Final

from ops.errors import StackError
from ops.services import BACKUP, BACKUP_VOLUME
from ops.settings_file import profiles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ops.images.resolve import ResolvedImage
    from ops.project import Project

PASSPHRASE: Final = "backup_passphrase"  # noqa: S105 (a name)
STORED: Final = "BACKUP_PASSPHRASE_STORED"
DIGEST_LENGTH: Final = 8
STANZA: Final = "airflow"
"""pgBackRest's name of the database; compose/backup.yaml sets it in the containers."""
FOLDER: Final = "/var/lib/backup"
"""Where the containers mount the repository: a volume, or the host folder BACKUP_FOLDER."""
DATA: Final = "/var/lib/postgresql/data"
NEVER_IN_A_SET: Final = (PASSPHRASE, "jwt_secret", "api_secret_key")
"""The passphrase encrypts the set. The other two sign tokens: a restore generates new ones."""

DEFAULTS: Final = {
    "BACKUP_KEEP": "4",
    "BACKUP_WAL_SECONDS": "50",
    "BACKUP_WAL_LIMIT": "8GiB",
}
"""The settings that no compose file reads; their defaults in compose/README.md are the same."""


def is_on(settings: Mapping[str, str]) -> bool:
    """Return whether the profile `backup` is on."""
    return BACKUP in profiles(settings)


def derived(settings: Mapping[str, str], images: Mapping[str, ResolvedImage]) -> dict[str, str]:
    """Return the settings that differ with the profile: the repository, and the images that have pgBackRest.

    Args:
        settings: Of .env.
        images: The images that exist.
    """
    if not is_on(settings):
        return {"BACKUP_REPOSITORY": "", "BACKUP_IMAGE": ""}
    repository = {"BACKUP_REPOSITORY": settings.get("BACKUP_FOLDER") or BACKUP_VOLUME}
    if "data-ha" in profiles(settings):
        return {**repository, "BACKUP_IMAGE": images["PATRONI_IMAGE"].reference}
    image = images["BACKUP_IMAGE"].reference
    return {**repository, "BACKUP_IMAGE": image, "POSTGRES_IMAGE": image}


def mounted_files(settings: Mapping[str, str], secrets: Mapping[str, str]) -> dict[str, str]:
    """Return the text of each file about backups that containers mount, by its path under secrets/mounted/.

    Args:
        settings: Of .env.
        secrets: Every secret of the operator that exists.
    """
    names = ("backup/pgbackrest.conf", "backup/archive.conf", "backup-files/restic_password")
    if not is_on(settings):
        return dict.fromkeys((*names, "backup-files/stack_secrets.json"), "")
    texts = (pgbackrest(settings, secrets[PASSPHRASE]), archive(settings), secrets[PASSPHRASE])
    return {**dict(zip(names, texts, strict=True)), "backup-files/stack_secrets.json": stack_secrets(secrets)}


def pgbackrest(settings: Mapping[str, str], passphrase: str) -> str:
    """Return pgBackRest's configuration: https://pgbackrest.org/configuration.html."""
    values = {
        "repo1-path": f"{FOLDER}/pgbackrest",
        "repo1-cipher-type": "aes-256-cbc",
        "repo1-cipher-pass": passphrase,
        "repo1-retention-full": setting(settings, "BACKUP_KEEP"),
        # Small files are stored together: a database of Airflow has a thousand.
        "repo1-bundle": "y",
        "compress-type": "zst",
        # A backup does not wait for the next checkpoint.
        "start-fast": "y",
        # Above this, log that cannot be archived is dropped, so that it does not fill the disk of Postgres. The next
        # backup closes the gap.
        "archive-push-queue-max": setting(settings, "BACKUP_WAL_LIMIT"),
        "lock-path": "/tmp/pgbackrest",  # noqa: S108 (a tmpfs of the container)
        "log-level-console": "warn",
        "log-level-file": "off",
    }
    lines = "".join(f"{key}={value}\n" for key, value in values.items())
    return f"[global]\n{lines}\n[{STANZA}]\npg1-path={DATA}/pgdata\npg1-user=postgres\n"


def archive(settings: Mapping[str, str]) -> str:
    """Return the settings of Postgres that send each finished or BACKUP_WAL_SECONDS old segment of the log."""
    return (
        "archive_mode = on\n"
        f"archive_timeout = {setting(settings, 'BACKUP_WAL_SECONDS')}\n"
        "archive_command = 'pgbackrest archive-push \"%p\"'\n"
    )


def setting(settings: Mapping[str, str], name: str) -> str:
    """Return a setting, or its default."""
    return settings.get(name) or DEFAULTS[name]


def stack_secrets(secrets: Mapping[str, str]) -> str:
    """Return the secrets of a set as JSON: those that a restore on an empty machine needs."""
    kept = {name: text for name, text in sorted(secrets.items()) if name not in NEVER_IN_A_SET}
    return json.dumps(kept, indent=1)


def digest(project: Project) -> str:
    """Return the first characters of `sha256sum` of the passphrase's file."""
    return hashlib.sha256((project.secrets / PASSPHRASE).read_bytes()).hexdigest()[:DIGEST_LENGTH]


def check_passphrase_is_stored(project: Project, settings: Mapping[str, str]) -> None:
    """Refuse backups until the operator has confirmed that the passphrase is stored on another machine too.

    The confirmation changes with the passphrase.

    Raises:
        StackError: BACKUP_PASSPHRASE_STORED is not the start of the file's digest.
    """
    if is_on(settings) and not hmac.compare_digest(settings.get(STORED, "").lower(), digest(project)):
        where = project.shown(project.secrets / PASSPHRASE)
        raise StackError(
            "cannot make backups: nobody has confirmed that their passphrase is stored outside this machine, and no "
            "backup can be read without it",
            where=where,
            hint=f"copy the file to a password manager, then set {STORED} in {project.shown(project.env_file)} to the "
            f"first {DIGEST_LENGTH} characters that this prints: sha256sum {where}",
        )
