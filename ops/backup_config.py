"""What the containers of the profile `backup` read: the repositories, their passphrase, and the secrets of a set.

Postgres pushes its log with pgBackRest, and the backup services make backups with it; restic backs up files. Both
encrypt with the secret `backup_passphrase` before anything leaves the container. While the profile is off, the files
are empty, and Postgres archives nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Final

from ops import backup_storage, token_keys
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
MOUNTED: Final = "/run/secrets"
DATA: Final = "/var/lib/postgresql/data"
SEGMENT: Final = 16
UNITS: Final = {"MiB": 1, "GiB": 2**10, "TiB": 2**20}
"""The size of a segment of Postgres' log, and of the units of BACKUP_WAL_LIMIT, in MiB."""
NEVER_IN_A_SET: Final = (PASSPHRASE, *token_keys.TRUSTED, token_keys.FORMER, "api_secret_key")
"""The passphrase encrypts the set. The others sign tokens: a restore generates new ones."""

DEFAULTS: Final = {
    "BACKUP_KEEP": "4",
    "BACKUP_WAL_SECONDS": "50",
    "BACKUP_WAL_LIMIT": "8GiB",
    **backup_storage.DEFAULTS,
}
"""The settings that no compose file reads; their defaults in compose/README.md are the same."""


def is_on(settings: Mapping[str, str]) -> bool:
    """Return whether the profile `backup` is on."""
    return BACKUP in profiles(settings)


def derived(settings: Mapping[str, str], images: Mapping[str, ResolvedImage]) -> dict[str, str]:
    """Return the settings that differ with the profile: the local storage, a route outside for S3, and the images.

    Args:
        settings: Of .env.
        images: The images that exist.
    """
    if not is_on(settings):
        return {"BACKUP_REPOSITORY": "", "BACKUP_ROUTE": "", "BACKUP_IMAGE": ""}
    repository = {
        "BACKUP_REPOSITORY": settings.get("BACKUP_FOLDER") or BACKUP_VOLUME,
        "BACKUP_ROUTE": backup_storage.ROUTED if backup_storage.S3 in backup_storage.names(settings) else "",
    }
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
    on = is_on(settings)
    authority = secrets.get(backup_storage.CA, "")
    return {
        "backup/pgbackrest.conf": pgbackrest(settings, secrets, MOUNTED) if on else "",
        "backup/archive.conf": archive(settings) if on else "",
        f"backup/{backup_storage.CA}": authority if on else "",
        "backup-files/restic.json": json.dumps(restic(settings, secrets, MOUNTED)) if on else "",
        f"backup-files/{backup_storage.RESTIC_CA}": authority if on else "",
        "backup-files/stack_secrets.json": stack_secrets(secrets) if on else "",
    }


def pgbackrest(settings: Mapping[str, str], secrets: Mapping[str, str], folder: str) -> str:
    """Return pgBackRest's configuration: https://pgbackrest.org/configuration.html.

    Args:
        settings: Of .env.
        secrets: The passphrase, and the files of the storages.
        folder: Where the container has the file of the S3 server's authority.
    """
    values = backup_storage.pgbackrest(settings, secrets, folder)
    for storage in backup_storage.names(settings):
        repository = f"repo{backup_storage.NUMBERS[storage]}"
        values |= {
            f"{repository}-cipher-type": "aes-256-cbc",
            f"{repository}-cipher-pass": secrets[PASSPHRASE],
            f"{repository}-retention-full": setting(settings, "BACKUP_KEEP"),
            # Small files are stored together: a database of Airflow has a thousand.
            f"{repository}-bundle": "y",
        }
    values |= {
        "compress-type": "zst",
        # A backup does not wait for the next checkpoint.
        "start-fast": "y",
        "lock-path": "/tmp/pgbackrest",  # noqa: S108 (a tmpfs of the container)
        "log-level-console": "warn",
        "log-level-file": "off",
    }
    sections = {"global": values, STANZA: {"pg1-path": f"{DATA}/pgdata", "pg1-user": "postgres"}}
    if backup_storage.S3 in backup_storage.names(settings):
        # pgBackRest waits 9 times as long for a server that does not answer; its default of 60 s is 9 minutes.
        values["io-timeout"] = "10"
        # A backup waits for its log, which a storage that is down delays.
        sections["global:backup"] = {"archive-timeout": "180"}
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in options.items())
        for name, options in sections.items()
    )


def restic(settings: Mapping[str, str], secrets: Mapping[str, str], folder: str) -> dict[str, dict[str, str]]:
    """Return restic's environment for each storage; the arguments are as for pgbackrest()."""
    environments = backup_storage.restic(settings, secrets, folder)
    return {name: each | {"RESTIC_PASSWORD": secrets[PASSPHRASE]} for name, each in environments.items()}


def archive(settings: Mapping[str, str]) -> str:
    """Return the settings of Postgres that send each finished or BACKUP_WAL_SECONDS old segment of the log."""
    number, unit = setting(settings, "BACKUP_WAL_LIMIT")[:-3], setting(settings, "BACKUP_WAL_LIMIT")[-3:]
    segments = max(1, int(number) * UNITS[unit] // SEGMENT)
    return (
        "archive_mode = on\n"
        f"archive_timeout = {setting(settings, 'BACKUP_WAL_SECONDS')}\n"
        f"archive_command = 'sh /usr/local/bin/pgbackrest-archive-push.sh \"%p\" {segments}'\n"
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
