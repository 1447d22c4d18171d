"""Where backups are stored: on this machine (a volume or BACKUP_FOLDER), in an S3 bucket, or in both.

Each storage has a repository of pgBackRest and one of restic, complete in itself. Numbers and names of the repositories
are the same in compose/backup/backup_service.py, which reads pgBackRest's configuration in the containers.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

from ops import operator_files
from ops.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ops.project import Project

LOCAL: Final = "local"
S3: Final = "s3"
NUMBERS: Final = {LOCAL: 1, S3: 2}
"""pgBackRest's number of each repository; a restore prefers the first one."""
FOLDER: Final = "/var/lib/backup"
"""Where the containers mount the local storage."""

KEY: Final = "backup_s3_key"
KEY_SECRET: Final = "backup_s3_key_secret"  # noqa: S105 (a name)
CA: Final = "backup_s3_ca.pem"
RESTIC_CA: Final = "restic_ca.pem"
"""The name of the same file in the container of restic, which has another user."""
SECRETS: Final = (KEY, KEY_SECRET, CA)
"""The operator's files in secrets/. The last one is optional: the certificate of a private authority."""
REQUIRED: Final = ("BACKUP_S3_ENDPOINT", "BACKUP_S3_BUCKET")
ROUTED: Final = "guarded-with-route"
"""The service of compose/common.yaml whose network has a route outside."""

DEFAULTS: Final = {
    "BACKUP_STORAGE": LOCAL,
    "BACKUP_S3_REGION": "us-east-1",
    "BACKUP_S3_PREFIX": "airflow-ha",
    "BACKUP_S3_URI_STYLE": "host",
}
"""The settings of storages that no compose file reads; their defaults in compose/README.md are the same."""

CAUSES: Final = (
    ("unable to get address", "BACKUP_S3_ENDPOINT: its name does not resolve"),
    ("unable to connect", "BACKUP_S3_ENDPOINT: the server does not answer"),
    ("timeout", "BACKUP_S3_ENDPOINT: the server does not answer"),
    ("unable to find hostname", "BACKUP_S3_ENDPOINT: the certificate of the server has another name"),
    ("unable to verify certificate", f"secrets/{CA}: it has not signed the certificate of the server"),
    ("NoSuchBucket", "BACKUP_S3_BUCKET: the server has no such bucket"),
    ("InvalidAccessKeyId", f"secrets/{KEY}: the server does not know this key"),
    ("SignatureDoesNotMatch", f"secrets/{KEY_SECRET}: it does not belong to the key"),
    ("AuthorizationHeaderMalformed", "BACKUP_S3_REGION: the bucket is in another region"),
    ("AccessDenied", f"secrets/{KEY}: the key may not list, read, write and delete in the bucket"),
)
"""What pgBackRest reports of S3, and the setting that is wrong."""
LOCAL_PLACE: Final = "BACKUP_FOLDER, or the volume backup-repository"
NOTHING_LOST: Final = "the log of Postgres waits meanwhile, and is sent afterwards"
MAKE_ROOM: Final = f"free space there, or lower BACKUP_KEEP in .env and run ./ops/stack up; {NOTHING_LOST}"
FAULTS: Final = (
    ("disk is full", MAKE_ROOM),
    ("no space left on device", MAKE_ROOM),
    ("read-only", f"mount it writable, then run ./ops/stack restart; {NOTHING_LOST}"),
    ("permission denied", f"let the users 999 and 50000 write there; {NOTHING_LOST}"),
    (
        "its backups are gone",
        "mount it again, then run ./ops/stack restart; if they are lost, ./ops/stack backup now --new",
    ),
    # pgBackRest 2.55 reports a write that a full disk cuts short with `[2] No such file or directory`.
    ("unable to write", MAKE_ROOM),
)
"""What pgBackRest, restic and the backup services report of the local storage, and what to do."""


def value(settings: Mapping[str, str], name: str) -> str:
    """Return a setting of storages, or its default."""
    return settings.get(name) or DEFAULTS.get(name, "")


def names(settings: Mapping[str, str]) -> tuple[str, ...]:
    """Return the storages of the backups, in the order of NUMBERS."""
    chosen = value(settings, "BACKUP_STORAGE").split(",")
    return tuple(name for name in NUMBERS if name in chosen)


def check_name(name: str | None) -> None:
    """Refuse a name that is of no storage; None is for all.

    Raises:
        StackError: No storage has it.
    """
    if name is not None and name not in NUMBERS:
        raise StackError(
            f"cannot use the backups in {name!r}: no storage has this name",
            where="--from",
            hint=f"use {' or '.join(NUMBERS)}",
        )


def secrets(project: Project) -> dict[str, str]:
    """Return the text of each file of SECRETS that exists."""
    return operator_files.read(project, SECRETS)


def check(project: Project, settings: Mapping[str, str]) -> None:
    """Refuse an S3 storage whose settings or files are missing, and a file of an authority without a certificate.

    Raises:
        StackError: The error names the setting or the file.
    """
    if S3 not in names(settings):
        return
    purpose = "store backups in S3"
    operator_files.require_settings(project, settings, REQUIRED, purpose, f"set BACKUP_STORAGE={LOCAL}")
    for name in (KEY, KEY_SECRET):
        operator_files.require_secret(project, name, purpose)
    if authority := secrets(project).get(CA):
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=authority)
        except ssl.SSLError:
            raise StackError(
                "cannot use the authority of the S3 server: the file has no certificate",
                where=project.shown(project.secrets / CA),
                hint="write the certificate into it in PEM, or delete it if the server has a public certificate",
            ) from None


def pgbackrest(settings: Mapping[str, str], files: Mapping[str, str], folder: str) -> dict[str, str]:
    """Return pgBackRest's options of the place of each repository.

    Args:
        settings: Of .env.
        files: Of secrets().
        folder: Where the container has the file of the authority.
    """
    options: dict[str, str] = {}
    if LOCAL in names(settings):
        options["repo1-path"] = f"{FOLDER}/pgbackrest"
    if S3 in names(settings):
        options |= {
            "repo2-type": "s3",
            "repo2-path": f"/{value(settings, 'BACKUP_S3_PREFIX')}/pgbackrest",
            "repo2-s3-endpoint": settings["BACKUP_S3_ENDPOINT"],
            "repo2-s3-bucket": settings["BACKUP_S3_BUCKET"],
            "repo2-s3-region": value(settings, "BACKUP_S3_REGION"),
            "repo2-s3-uri-style": value(settings, "BACKUP_S3_URI_STYLE"),
            "repo2-s3-key": files[KEY],
            "repo2-s3-key-secret": files[KEY_SECRET],
            **({"repo2-storage-ca-file": f"{folder}/{CA}"} if CA in files else {}),
        }
    return options


def restic(settings: Mapping[str, str], files: Mapping[str, str], folder: str) -> dict[str, dict[str, str]]:
    """Return restic's environment for each storage; the arguments are as for pgbackrest()."""
    environments = {LOCAL: {"RESTIC_REPOSITORY": f"{FOLDER}/restic"}} if LOCAL in names(settings) else {}
    if S3 in names(settings):
        place = [settings["BACKUP_S3_ENDPOINT"], settings["BACKUP_S3_BUCKET"], value(settings, "BACKUP_S3_PREFIX")]
        environments[S3] = {
            "RESTIC_REPOSITORY": f"s3:https://{'/'.join(place)}/restic",
            "AWS_ACCESS_KEY_ID": files[KEY],
            "AWS_SECRET_ACCESS_KEY": files[KEY_SECRET],
            "AWS_DEFAULT_REGION": value(settings, "BACKUP_S3_REGION"),
            **({"RESTIC_CACERT": f"{folder}/{RESTIC_CA}"} if CA in files else {}),
        }
    return environments


def only(configuration: str, storage: str) -> str:
    """Return pgBackRest's configuration without the repositories of other storages."""
    others = tuple(f"repo{number}-" for name, number in NUMBERS.items() if name != storage)
    return "".join(line for line in configuration.splitlines(keepends=True) if not line.startswith(others))


def advice(message: str) -> tuple[str, str]:
    """Return where the fault is that a message of an engine reports, and what to do; both empty if it is unknown."""
    if wrong := wrong_setting(message):
        return wrong, "correct it, then run ./ops/stack up"
    return next(((LOCAL_PLACE, hint) for sign, hint in FAULTS if sign in message.lower()), ("", ""))


def wrong_setting(message: str) -> str:
    """Return which setting of S3 a message of pgBackRest is about; empty if it is about none."""
    return next((cause for sign, cause in CAUSES if sign in message), "")
